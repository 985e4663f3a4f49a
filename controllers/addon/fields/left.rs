//! Fields that a manifest leaves to others: an autoscaler's, a resizer's. They are set when the object
//! is made, and from then on applied as they are found.

use serde_json::Value;

/// Annotation in a manifest: paths of the fields, separated by commas, such as
/// `spec.replicas, spec.template.spec.containers[web].resources`; brackets choose an item of a list by
/// its name.
pub const LEAVE_ANNOTATION: &str = "quarterdeck.dev/leave-fields";

/// What is applied where the server has the object like `live`.
#[must_use]
pub fn as_left(mut body: Value, live: &Value) -> Value {
    let annotation = body.pointer("/metadata/annotations").and_then(|all| all.get(LEAVE_ANNOTATION));
    let Some(paths) = annotation.and_then(Value::as_str).map(str::to_owned) else { return body };
    for path in paths.split(',').map(str::trim).filter(|path| !path.is_empty()) {
        let steps: Vec<Step<'_>> = path.split('.').flat_map(steps).collect();
        // What identifies the object is nobody else's.
        if matches!(steps.first(), Some(Step::Field("spec" | "data"))) && steps.len() > 1 {
            take_over(&mut body, live, &steps);
        }
    }
    body
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(&'a str),
}

fn steps(word: &str) -> Vec<Step<'_>> {
    match word.split_once('[') {
        Some((field, item)) => vec![Step::Field(field), Step::Item(item.trim_end_matches(']'))],
        None => vec![Step::Field(word)],
    }
}

fn take_over(body: &mut Value, live: &Value, steps: &[Step<'_>]) {
    let Some((step, rest)) = steps.split_first() else { return };
    let named = |item: &&Value, name: &str| item["name"].as_str() == Some(name);
    let found = match step {
        Step::Field(field) => live.get(field),
        Step::Item(name) => live.as_array().and_then(|items| items.iter().find(|item| named(item, name))),
    };
    let Some(found) = found else { return };
    let place = match step {
        Step::Field(field) if rest.is_empty() => {
            if let Some(map) = body.as_object_mut() {
                map.insert((*field).to_owned(), found.clone());
            }
            return;
        }
        Step::Field(field) => body.get_mut(field),
        Step::Item(name) => {
            body.as_array_mut().and_then(|items| items.iter_mut().find(|item| item["name"].as_str() == Some(name)))
        }
    };
    if let Some(place) = place {
        take_over(place, found, rest);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(replicas: i64, cpu: &str) -> Value {
        json!({
            "metadata": {"name": "x", "annotations": {LEAVE_ANNOTATION: "spec.replicas, spec.template.spec.containers[web].resources,metadata.name,spec"}},
            "spec": {"replicas": replicas, "paused": false, "template": {"spec": {"containers": [
                {"name": "side", "resources": {"cpu": "1"}},
                {"name": "web", "image": "i", "resources": {"cpu": cpu}},
            ]}}},
        })
    }

    #[test]
    fn fields_that_are_left_are_taken_as_they_are() {
        let mut live = object(7, "4");
        live["spec"]["paused"] = true.into();
        live["spec"]["template"]["spec"]["containers"][0]["resources"]["cpu"] = "9".into();
        live["metadata"]["name"] = "y".into();
        assert_eq!(as_left(object(2, "1"), &live), object(7, "4"), "and no other");
    }

    #[test]
    fn what_is_not_there_stays_as_written() {
        for live in [json!({}), json!({"spec": null}), json!({"spec": {"template": {"spec": {"containers": []}}}})] {
            assert_eq!(as_left(object(2, "1"), &live), object(2, "1"));
        }
        let plain = json!({"spec": {"replicas": 1}});
        assert_eq!(as_left(plain.clone(), &object(7, "4")), plain);
    }
}
