//! Who runs a template: this process, or Argo.

use super::program::Program;
use super::{Cause, Refusal};

/// Annotation of an Addon that says who runs its templates.
pub const ANNOTATION: &str = "quarterdeck.dev/runner";

/// What an Addon asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// This process, or nobody.
    Native,
    /// Argo, or nobody.
    Argo,
    /// This process if the whole template is in its grammar, else Argo if the cluster has it.
    #[default]
    Auto,
}

/// Reads the annotation's value.
pub fn wish(annotation: Option<&str>) -> Result<Wish, Refusal> {
    match annotation {
        None | Some("" | "auto") => Ok(Wish::Auto),
        Some("native") => Ok(Wish::Native),
        Some("argo") => Ok(Wish::Argo),
        Some(other) => Err(Refusal::value(
            format!("metadata.annotations.{ANNOTATION}"),
            format!("{other:?} is no runner: native, argo and auto are"),
        )),
    }
}

/// Who runs a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Runner {
    /// This process.
    Native(Box<Program>),
    /// Argo: make the Workflow object.
    Argo,
}

/// Chooses, or says why nobody runs it.
///
/// `argo_served` is whether the cluster serves Argo's Workflows. `begun` is whether steps of this
/// revision have run natively already: then it stays at that. A template that is refused for a *value*
/// is never handed to Argo, which pastes values into text.
pub fn choose(
    wish: Wish,
    compiled: Result<Program, Vec<Refusal>>,
    argo_served: bool,
    begun: bool,
) -> Result<Runner, Vec<Refusal>> {
    let not_served = || Refusal::new("", "the cluster does not serve workflows.argoproj.io");
    match (wish, compiled) {
        (Wish::Argo, Err(refusals)) if refusals.iter().any(|refusal| refusal.cause == Cause::Value) => Err(refusals),
        (Wish::Argo, _) if argo_served => Ok(Runner::Argo),
        (Wish::Argo, _) => Err(vec![not_served()]),
        (Wish::Native | Wish::Auto, Ok(program)) => Ok(Runner::Native(Box::new(program))),
        (Wish::Native, Err(refusals)) => Err(refusals),
        (Wish::Auto, Err(refusals)) => {
            if begun || refusals.iter().any(|refusal| refusal.cause == Cause::Value) {
                return Err(refusals);
            }
            if argo_served {
                return Ok(Runner::Argo);
            }
            Err(refusals.into_iter().chain([not_served()]).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_read() {
        for (text, expected) in [
            (None, Some(Wish::Auto)),
            (Some(""), Some(Wish::Auto)),
            (Some("auto"), Some(Wish::Auto)),
            (Some("native"), Some(Wish::Native)),
            (Some("argo"), Some(Wish::Argo)),
            (Some("Argo"), None),
        ] {
            assert_eq!(wish(text).ok(), expected, "{text:?}");
        }
        assert_eq!(wish(Some("x")).unwrap_err().field_path, "metadata.annotations.quarterdeck.dev/runner");
    }

    #[test]
    fn native_comes_first_then_argo_then_nobody() {
        #[derive(Clone, Copy, PartialEq, Debug)]
        enum Chosen {
            Native,
            Argo,
            Nobody,
        }
        use Chosen::{Argo, Native, Nobody};
        let fine = || Ok(Program::default());
        let grammar = || Err(vec![Refusal::new("spec.suspend", "x")]);
        let value = || Err(vec![Refusal::new("spec.suspend", "x"), Refusal::value("spec.args", "y")]);
        type Compiled = Result<Program, Vec<Refusal>>;
        let cases: [(Wish, Compiled, bool, bool, Chosen); 14] = [
            (Wish::Auto, fine(), true, false, Native),
            (Wish::Auto, fine(), false, false, Native),
            (Wish::Auto, grammar(), true, false, Argo),
            (Wish::Auto, grammar(), false, false, Nobody),
            (Wish::Auto, grammar(), true, true, Nobody),
            (Wish::Auto, value(), true, false, Nobody),
            (Wish::Native, fine(), true, false, Native),
            (Wish::Native, grammar(), true, false, Nobody),
            (Wish::Native, value(), true, false, Nobody),
            (Wish::Argo, fine(), true, false, Argo),
            (Wish::Argo, fine(), false, false, Nobody),
            (Wish::Argo, grammar(), true, false, Argo),
            (Wish::Argo, grammar(), false, false, Nobody),
            (Wish::Argo, value(), true, false, Nobody),
        ];
        for (wish, compiled, served, begun, expected) in cases {
            let chosen = match choose(wish, compiled.clone(), served, begun) {
                Ok(Runner::Native(_)) => Native,
                Ok(Runner::Argo) => Argo,
                Err(refusals) => {
                    assert!(!refusals.is_empty());
                    Nobody
                }
            };
            assert_eq!(chosen, expected, "{wish:?} {compiled:?} served {served} begun {begun}");
        }
    }
}
