use super::super::{Fault, Power, Rule};
use super::*;
use crate::provider::Instances as _;

async fn one(sim: &Sim, asked: NodeRef) -> Lookup {
    let mut answers = sim.get_many(&call("a", 0), std::slice::from_ref(&asked)).await.unwrap();
    answers.nodes.remove(&asked).unwrap().unwrap()
}

fn with(names: &[&str]) -> (Sim, Vec<String>) {
    let sim = Sim::default();
    let add = |name: &&str| sim.command(Command::AddInstance(NewInstance::named(name))).unwrap().id;
    let ids = names.iter().map(add).collect();
    (sim, ids)
}

#[tokio::test]
async fn found_stopped_terminated_and_forgotten_are_four_things() {
    let (sim, ids) = with(&["n"]);
    let id = ids[0].as_str();
    let Lookup::Found(by_id) = one(&sim, node("other", Some(id))).await else { panic!() };
    let Lookup::Found(by_name) = one(&sim, node("n", None)).await else { panic!() };
    assert_eq!(by_id, by_name);
    assert!(!by_id.shutdown);
    sim.command(Command::SetPower { name: "n".to_owned(), power: Power::Stopped }).unwrap();
    let Lookup::Found(stopped) = one(&sim, node("n", Some(id))).await else { panic!() };
    assert!(stopped.shutdown);
    sim.command(Command::SetPower { name: "n".to_owned(), power: Power::Terminated }).unwrap();
    let Lookup::Absent(proof) = one(&sim, node("n", Some(id))).await else { panic!() };
    assert_eq!(proof.evidence, "instance i-1 is terminated");
    let (sim, ids) = with(&["n"]);
    sim.command(Command::ForgetInstance { name: "n".to_owned() }).unwrap();
    assert!(matches!(one(&sim, node("n", Some(&ids[0]))).await, Lookup::Absent(_)));
}

#[tokio::test]
async fn ids_of_others_are_not_mine() {
    let (sim, _) = with(&["n"]);
    let others =
        ["aws:///a/i-1", "sim://other/sim-1a/i-1", "sim://sim-account/i-1", "sim://sim-account/z/x", "i-1", ""];
    for other in others {
        assert_eq!(one(&sim, node("n", Some(other))).await, Lookup::NotMine, "{other}");
    }
}

#[tokio::test]
async fn kubernetes_labels_are_kept_back() {
    let sim = Sim::default();
    let mut new = NewInstance::named("n");
    for key in ["kubernetes.io/x", "node.kubernetes.io/x", "foo.k8s.io/x", "example.com/x", "x"] {
        new.labels.insert(key.to_owned(), String::new());
    }
    sim.command(Command::AddInstance(new)).unwrap();
    let Lookup::Found(found) = one(&sim, node("n", None)).await else { panic!() };
    assert_eq!(found.labels.keys().collect::<Vec<_>>(), ["example.com/x", "x"]);
}

#[tokio::test]
async fn faults_of_lists_lie_and_poison_fails_the_whole_batch() {
    let (sim, ids) = with(&["n", "m"]);
    let asked = [node("n", Some(&ids[0])), node("m", Some(&ids[1]))];
    let absent =
        |answers: &Answers| answers.nodes.values().filter(|answer| matches!(answer, Ok(Lookup::Absent(_)))).count();
    let look = async |fault: Fault| {
        let id = sim.add_fault(Rule::new("instances.*", fault));
        let answers = sim.get_many(&call("a", 0), &asked).await;
        sim.clear_faults(Some(id));
        answers
    };
    assert_eq!(absent(&look(Fault::Partial { keep: 1 }).await.unwrap()), 1);
    assert_eq!(absent(&look(Fault::Partial { keep: 0 }).await.unwrap()), 2);
    let wrong = look(Fault::WrongAccount { account: "x".to_owned() }).await.unwrap();
    assert_eq!((wrong.account.as_str(), absent(&wrong)), ("x", 2));
    look(Fault::PoisonNode { name: "m".to_owned() }).await.unwrap_err();
    assert_eq!(absent(&sim.get_many(&call("a", 0), &asked).await.unwrap()), 0);
    set(&sim, Settings { max_batch: 1, ..Settings::default() });
    assert_eq!(sim.get_many(&call("a", 0), &asked).await.unwrap_err().outcome(), "invalid");
}
