//! Putting a manager together: its name, and the table of its controllers.

use std::any::Any;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use quarterdeck_runtime::controller::{Controller, Descriptor, Registrar, SetupError};
use quarterdeck_runtime::engine::{Foundation, Unit, build};
use quarterdeck_runtime::facility::{Facilities, Facility, Given, Ground};

use crate::flags::{FlagSet, Parsed, Program};

/// A manager with its table of controllers.
///
/// ```no_run
/// use quarterdeck_manager::Manager;
///
/// fn main() -> std::process::ExitCode {
///     Manager::builder("my-manager").about("Runs my controllers.").main()
/// }
/// ```
pub struct Manager {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    pub(crate) entries: Vec<Entry>,
    pub(crate) shared: Vec<Shared>,
    pub(crate) given: Given,
}

/// Sets a controller up with its flags; does no I/O.
type Build = fn(&Parsed, &Foundation) -> Result<Arc<dyn Unit>, SetupError>;

/// Sets a facility up with its flags; does no I/O.
type Bring = fn(&Parsed, &Ground, &mut Facilities) -> Result<(), SetupError>;

/// What several controllers share.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    pub(crate) flags: fn(FlagSet) -> FlagSet,
    pub(crate) bring: Bring,
}

/// One line of the table.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) descriptor: Descriptor,
    pub(crate) flags: fn(FlagSet) -> FlagSet,
    pub(crate) build: Build,
}

impl Manager {
    /// A manager without controllers; `name` is also the default name of its Lease.
    #[must_use]
    pub fn builder(name: &'static str) -> Self {
        let program = Program {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            about: String::new(),
            controllers: Vec::new(),
            upstream: false,
        };
        Self { name, program, entries: Vec::new(), shared: Vec::new(), given: Given::default() }
    }

    /// What the program is, for `--help`; one paragraph.
    #[must_use]
    pub fn about(mut self, about: &str) -> Self {
        about.clone_into(&mut self.program.about);
        self
    }

    /// The program's version.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.program.version);
        self
    }

    /// Stands in for kube-controller-manager: upstream's controller names and flags are accepted.
    #[must_use]
    pub fn upstream(mut self) -> Self {
        self.program.upstream = true;
        self
    }

    /// Gives the facilities a value that they look for by its type, such as further cloud providers.
    #[must_use]
    pub fn given<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.given.put(Arc::new(value));
        self
    }

    /// Runs as the arguments of this process say, until it is told to stop.
    #[must_use]
    pub fn main(self) -> ExitCode {
        self.run(std::env::args_os().skip(1))
    }

    /// Runs as `args` say (without the program's name), until it is told to stop.
    #[must_use]
    pub fn run(self, args: impl IntoIterator<Item = OsString>) -> ExitCode {
        crate::entry::run(&self, args)
    }
}

impl Registrar for Manager {
    fn controller<C: Controller>(mut self) -> Self {
        let descriptor = C::DESCRIPTOR;
        assert!(
            self.entries.iter().all(|entry| entry.descriptor.name != descriptor.name),
            "controller {} stands twice in the table",
            descriptor.name
        );
        self.program.controllers.push(descriptor);
        self.entries.push(Entry {
            descriptor,
            flags: |flags| flags.with::<C::Config>(C::DESCRIPTOR.name),
            build: |parsed, foundation| build::<C>(&parsed.get::<C::Config>(C::DESCRIPTOR.name), foundation),
        });
        self
    }

    fn facility<F: Facility>(mut self) -> Self {
        self.shared.push(Shared {
            flags: |flags| flags.with::<F::Config>(F::NAME),
            bring: |parsed, ground, facilities| facilities.add::<F>(&parsed.get::<F::Config>(F::NAME), ground),
        });
        self
    }
}
