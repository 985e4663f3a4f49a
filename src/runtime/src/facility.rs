//! Facilities: what several controllers of a process share and that has flags of its own, such as the cloud.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use quarterdeck_election::Gate;
use serde_json::value::RawValue;

use crate::client::Clients;
use crate::controller::SetupError;
use crate::informer::Informers;

/// Something that several controllers share: one value a process, set up once, before the controllers.
pub trait Facility: Send + Sync + Sized + 'static {
    /// Its name, under which its flags are grouped.
    const NAME: &'static str;
    /// Its flags.
    type Config: clap::Args + Clone + Send + Sync;

    /// Puts it together. Does no I/O.
    ///
    /// # Errors
    /// When the configuration makes no sense; the message names the flag.
    fn setup(config: &Self::Config, ground: &Ground) -> Result<Self, SetupError>;

    /// How it is now, for the status page, under its name, as JSON whose fields are in order; `None` if there is nothing to tell. Answers at once.
    fn status(&self) -> Option<Box<RawValue>> {
        None
    }
}

/// What a facility may build on.
#[derive(Clone)]
pub struct Ground {
    /// The process's informers.
    pub informers: Informers,
    /// The process's metrics registry.
    pub registry: prometheus::Registry,
    /// The connections to the API server; there once the process has read its kubeconfig, never while things are set up.
    pub clients: Arc<OnceLock<Clients>>,
    /// What the program was given besides.
    pub given: Given,
}

/// Values by type, which a program gives to its facilities.
#[derive(Clone, Default)]
pub struct Given {
    all: BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Given {
    /// Adds a value, or replaces the one of its type.
    pub fn put<T: Any + Send + Sync>(&mut self, value: Arc<T>) {
        self.all.insert(TypeId::of::<T>(), value);
    }

    /// The value of this type.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.all.get(&TypeId::of::<T>()).and_then(|value| Arc::clone(value).downcast().ok())
    }
}

/// Says how a facility is.
type Told = Arc<dyn Fn() -> Option<Box<RawValue>> + Send + Sync>;

/// The facilities of a process, by type.
#[derive(Clone, Default)]
pub struct Facilities {
    all: Given,
    told: Vec<(&'static str, Told)>,
}

impl Facilities {
    /// Sets one up and keeps it.
    ///
    /// # Errors
    /// When its configuration makes no sense.
    pub fn add<F: Facility>(&mut self, config: &F::Config, ground: &Ground) -> Result<(), SetupError> {
        let facility = Arc::new(F::setup(config, ground)?);
        self.all.put(Arc::clone(&facility));
        self.told.push((F::NAME, Arc::new(move || facility.status())));
        Ok(())
    }

    /// How each facility is that has something to tell, in the order in which they were added.
    #[must_use]
    pub fn status(&self) -> Vec<(&'static str, Box<RawValue>)> {
        self.told.iter().filter_map(|(name, status)| Some((*name, status()?))).collect()
    }

    /// Keeps one that was made otherwise, as tests do.
    #[must_use]
    pub fn with<F: Facility>(mut self, facility: Arc<F>) -> Self {
        self.all.put(facility);
        self
    }

    /// The facility of this type.
    #[must_use]
    pub fn get<F: Facility>(&self) -> Option<Arc<F>> {
        self.all.get()
    }
}

/// The right to change things outside the API server, where no fence stands: a gate to ask before each call, and
/// the number of the tenure, by which the other side can refuse calls of a past one.
#[derive(Clone)]
pub struct Authority {
    /// Asked when a call starts.
    pub gate: Gate,
    /// resourceVersion of the Lease write that began the tenure; it grows from tenure to tenure, also when the Lease
    /// is deleted and made anew. 0 without an election.
    pub epoch: u64,
}
