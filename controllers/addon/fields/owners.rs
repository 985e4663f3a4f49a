//! Entries of `managedFields`: who owns what, which owners are people, and how their fields are
//! taken back.
//!
//! A field that a person added stays when we apply our file again: the apply only removes what its
//! own manager had applied before. So a person's entry is first moved into ours; the apply that
//! follows then finds fields that are ours and no longer in the file, and removes them, unless a
//! controller owns them too. This is also how objects that kubectl applied are adopted
//! (`client-go:util/csaupgrade`).
//!
//! kubectl's memory of what it applied, an annotation, is nobody's change: it stays as it is, and kubectl's.

use serde_json::{Value, json};

use super::set::FieldSet;

/// Path of kubectl's memory, the annotation that holds what it applied.
const MEMORY: [&str; 3] = ["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"];

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// Its manager.
    pub manager: String,
    /// How it came to own the fields.
    pub operation: Operation,
    /// The subresource written through; empty for the object itself.
    pub subresource: String,
    /// Its fields, without kubectl's memory.
    pub fields: FieldSet,
    /// Whether it owns kubectl's memory.
    remembers: bool,
    /// The entry as the server wrote it.
    raw: Value,
}

/// Whose changes are taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    extra: Vec<String>,
}

impl Overrides {
    /// `kubectl*` and these managers; a `*` at the end stands for any rest.
    #[must_use]
    pub fn new(extra: &[String]) -> Self {
        Self { extra: extra.to_vec() }
    }

    /// These and one more manager.
    #[must_use]
    pub fn and(mut self, manager: &str) -> Self {
        self.extra.push(manager.to_owned());
        self
    }

    /// Whether an owner's fields are a person's. Writes through a subresource never are: `scale`
    /// and `status` belong to whoever uses them.
    #[must_use]
    pub fn is_human(&self, owner: &Owner) -> bool {
        owner.subresource.is_empty() && self.names(&owner.manager)
    }

    fn names(&self, manager: &str) -> bool {
        let listed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => manager.starts_with(start),
            None => manager == pattern,
        };
        manager.starts_with("kubectl") || self.extra.iter().any(listed)
    }
}

/// The entries of an object's `managedFields`.
#[must_use]
pub fn owners(object: &Value) -> Vec<Owner> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    entries
        .into_iter()
        .flatten()
        .map(|entry| {
            let mut fields = entry.get("fieldsV1").map(FieldSet::parse).unwrap_or_default();
            Owner {
                manager: text(entry, "manager"),
                operation: if text(entry, "operation") == "Apply" { Operation::Apply } else { Operation::Update },
                subresource: text(entry, "subresource"),
                remembers: fields.take(&MEMORY),
                fields,
                raw: entry.clone(),
            }
        })
        .collect()
}

impl Owner {
    /// The entry with nothing but kubectl's memory.
    fn memory(&self) -> Value {
        let mut entry = self.raw.clone();
        let [metadata, annotations, memory] = MEMORY.map(|name| format!("f:{name}"));
        entry["fieldsV1"] = json!({metadata: {annotations: {memory: {}}}});
        entry
    }
}

/// The fields that `manager` applied.
#[must_use]
pub fn applied_by<'a>(owners: &'a [Owner], manager: &str) -> Option<&'a FieldSet> {
    owners.iter().find(|owner| is_applier(owner, manager)).map(|owner| &owner.fields)
}

fn is_applier(owner: &Owner, manager: &str) -> bool {
    owner.operation == Operation::Apply && owner.subresource.is_empty() && owner.manager == manager
}

/// `managedFields` with every person's entry moved into the one that `manager` applied in
/// `api_version`; `None` if there is nothing to move.
#[must_use]
pub fn take_back(owners: &[Owner], overrides: &Overrides, manager: &str, api_version: &str) -> Option<Value> {
    let human = |owner: &&Owner| !is_applier(owner, manager) && overrides.is_human(owner) && !owner.fields.is_empty();
    if !owners.iter().any(|owner| human(&owner)) {
        return None;
    }
    let mut fields = applied_by(owners, manager).cloned().unwrap_or_default();
    let mut time = None;
    for owner in owners.iter().filter(human) {
        fields.add(&owner.fields);
        time = time.max(owner.raw.get("time").and_then(Value::as_str));
    }
    let mut ours = json!({"manager": manager, "operation": "Apply", "apiVersion": api_version, "fieldsType": "FieldsV1", "fieldsV1": fields.to_value()});
    if let Some(time) = time {
        ours["time"] = time.into();
    }
    let rest = owners.iter().filter(|owner| !is_applier(owner, manager)).filter_map(|owner| {
        if !human(&owner) {
            return Some(owner.raw.clone());
        }
        owner.remembers.then(|| owner.memory())
    });
    Some(std::iter::once(ours).chain(rest).collect())
}

/// The fields that a controller keeps through the `scale` subresource, such as a
/// HorizontalPodAutoscaler's `replicas`: they are its, even where the file names them.
#[must_use]
pub fn yielded(owners: &[Owner], overrides: &Overrides) -> FieldSet {
    let mut set = FieldSet::default();
    for owner in owners {
        if owner.subresource == "scale" && !overrides.names(&owner.manager) {
            set.add(&owner.fields);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "quarterdeck-addons";

    fn entry(manager: &str, operation: &str, subresource: &str, fields: &Value) -> Value {
        let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1", "fieldsV1": fields});
        if !subresource.is_empty() {
            entry["subresource"] = subresource.into();
        }
        entry
    }

    fn object(entries: &[Value]) -> Vec<Owner> {
        owners(&json!({"metadata": {"managedFields": entries}}))
    }

    #[test]
    fn people_are_kubectl_and_those_named() {
        let overrides = Overrides::new(&["helm".into(), "Mozilla*".into()]);
        for (manager, subresource, human) in [
            ("kubectl-edit", "", true),
            ("kubectl", "", true),
            ("kubectl-client-side-apply", "", true),
            ("kubectl", "scale", false),
            ("kubectl-edit", "status", false),
            ("helm", "", true),
            ("helmet", "", false),
            ("Mozilla/5.0", "", true),
            ("kube-controller-manager", "", false),
            (OURS, "", false),
        ] {
            let owner = &object(&[entry(manager, "Update", subresource, &json!({"f:a": {}}))])[0];
            assert_eq!(overrides.is_human(owner), human, "{manager} {subresource}");
        }
    }

    #[test]
    fn peoples_fields_move_and_controllers_stay() {
        let controller = entry(
            "kube-controller-manager",
            "Update",
            "",
            &json!({"f:metadata": {"f:annotations": {"f:revision": {}}}}),
        );
        let status = entry("kubectl-edit", "Update", "status", &json!({"f:status": {}}));
        let all = object(&[
            entry(OURS, "Apply", "", &json!({"f:spec": {"f:a": {}}})),
            entry("kubectl-edit", "Update", "", &json!({"f:spec": {"f:b": {}}})),
            entry("kubectl", "Apply", "", &json!({"f:spec": {"f:c": {}}})),
            controller.clone(),
            status.clone(),
        ]);
        let moved = take_back(&all, &Overrides::default(), OURS, "apps/v1").expect("there are people");
        let moved = moved.as_array().expect("a list");
        assert_eq!(moved.len(), 3);
        assert_eq!(moved[0]["fieldsV1"], json!({"f:spec": {"f:a": {}, "f:b": {}, "f:c": {}}}));
        assert_eq!((&moved[0]["manager"], &moved[0]["operation"]), (&json!(OURS), &json!("Apply")));
        assert_eq!(moved[1..], [controller, status]);
    }

    #[test]
    fn nothing_moves_where_no_person_was() {
        let all = object(&[
            entry(OURS, "Apply", "", &json!({"f:a": {}})),
            entry("kubectl", "Update", "scale", &json!({"f:spec": {"f:replicas": {}}})),
        ]);
        assert_eq!(take_back(&all, &Overrides::default(), OURS, "v1"), None);
        assert_eq!(take_back(&object(&[]), &Overrides::default(), OURS, "v1"), None);
        assert_eq!(
            take_back(
                &object(&[entry(OURS, "Apply", "", &json!({"f:a": {}}))]),
                &Overrides::new(&["*".into()]),
                OURS,
                "v1"
            ),
            None
        );
    }

    #[test]
    fn an_adopted_object_gets_an_entry_of_ours() {
        let all = object(&[entry("kubectl-client-side-apply", "Update", "", &json!({"f:data": {"f:a": {}}}))]);
        let moved = take_back(&all, &Overrides::default(), OURS, "v1").expect("kubectl was there");
        assert_eq!(moved[0]["fieldsV1"], json!({"f:data": {"f:a": {}}}));
        assert_eq!(moved[0]["apiVersion"], json!("v1"));
    }

    #[test]
    fn what_kubectl_remembers_stays_with_kubectl() {
        let last = MEMORY[2];
        let whole = json!({"f:data": {"f:a": {}}, "f:metadata": {"f:annotations": {".": {}, format!("f:{last}"): {}}}});
        let all = object(&[entry("kubectl-client-side-apply", "Update", "", &whole)]);
        let moved = take_back(&all, &Overrides::default(), OURS, "v1").expect("kubectl was there");
        assert_eq!(moved[0]["fieldsV1"], json!({"f:data": {"f:a": {}}}));
        let memory = json!({"f:metadata": {"f:annotations": {format!("f:{last}"): {}}}});
        assert_eq!(moved[1], entry("kubectl-client-side-apply", "Update", "", &memory));
        // What is left of kubectl's is no change of a person's: the second pass finds nothing.
        let again = owners(&json!({"metadata": {"managedFields": moved}}));
        assert_eq!(take_back(&again, &Overrides::default(), OURS, "v1"), None);
    }

    #[test]
    fn only_a_controllers_scale_is_yielded() {
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let by = |manager| yielded(&object(&[entry(manager, "Update", "scale", &replicas)]), &Overrides::default());
        assert_eq!(by("kube-controller-manager").to_value(), replicas);
        assert!(by("kubectl").is_empty());
        assert!(
            yielded(&object(&[entry("kube-controller-manager", "Update", "status", &replicas)]), &Overrides::default())
                .is_empty()
        );
    }
}
