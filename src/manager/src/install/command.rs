//! `install` and `uninstall` as an operator calls them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use quarterdeck_election::{BootClock, Gate};
use quarterdeck_runtime::client::{ClientOptions, Clients};
use quarterdeck_runtime::controller::Account;
use quarterdeck_runtime::informer::Informers;
use quarterdeck_runtime::notes::Notes;
use serde_json::Value;

use super::authority::Authority;
use super::folder::{self, Folder};
use super::{Manifest, Needs, Target, install, manifests, uninstall};
use crate::builder::Manager;
use crate::flags::Parsed;
use crate::run::source;
use crate::setup::{Chosen, set_up};

/// Name of the subcommand that installs.
pub(crate) const INSTALL: &str = "install";
/// Name of the subcommand that removes.
pub(crate) const UNINSTALL: &str = "uninstall";

/// Flags of `install` and `uninstall`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InstallFlags {
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write the manifests into this folder, one file a purpose, and talk to no server.
    #[arg(long, default_value = "")]
    pub(crate) output_dir: String,
    /// User of the replicas' kubeconfig (the common name of its certificate), who is granted the manager's rights.
    #[arg(long, default_value = "quarterdeck")]
    pub(crate) user: String,
    /// Bind the directory addons' account to cluster-admin. Without it, grant that account what its addons need.
    /// An account named with --addon-service-account is never bound.
    #[arg(long, default_value_t = true)]
    pub(crate) addons_cluster_admin: bool,
    /// Also make the folder of this master, such as /etc/kubernetes/quarterdeck: with quarterdeck.conf, the kubeconfig of the
    /// replica that runs here, whose certificate is signed now; and the folder of --state-dir. Run it again to renew the
    /// certificate: it is replaced when less than a third of its year is left, without a restart.
    #[arg(long, value_name = "DIR", default_value = "")]
    pub(crate) config_dir: String,
    /// User and group of the process on this master, to whom these folders belong.
    #[arg(long, value_name = "ID", default_value_t = 65532)]
    pub(crate) config_owner: u32,
    /// Server in quarterdeck.conf, such as https://127.0.0.1:6443, the one of this master. Without it, that of --kubeconfig.
    #[arg(long, value_name = "URL", default_value = "")]
    pub(crate) config_server: String,
    /// Certificate of the authority that signs it, which the server trusts (its --client-ca-file).
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/pki/ca.crt")]
    pub(crate) cluster_signing_cert_file: PathBuf,
    /// Key of that authority.
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/pki/ca.key")]
    pub(crate) cluster_signing_key_file: PathBuf,
}

/// Does what the command line says.
pub(crate) async fn run(manager: &Manager, parsed: &Parsed, remove: bool) -> anyhow::Result<()> {
    let flags: InstallFlags = parsed.get(if remove { UNINSTALL } else { INSTALL });
    let needs = needs(manager, parsed)?;
    let mut target = target(parsed, &flags);
    // Rights of before that are no longer wanted are removed with the rest.
    target.addons_cluster_admin = remove || (target.addons_cluster_admin && have_own_accounts(&needs));
    let all = manifests(&target, &needs);
    if !flags.output_dir.is_empty() {
        return write(Path::new(&flags.output_dir), &all);
    }
    // Before anything is changed: what is missing here would leave the work half done.
    let master = master(parsed, &flags, remove)?;
    // Nothing here is written as a leader, so no gate stands in the way.
    let gate = Gate::unelected(Arc::new(BootClock));
    let options = ClientOptions { qps: 0.0, ..ClientOptions::default() };
    let clients = Clients::connect(source(parsed)?, options, gate, &prometheus::Registry::new()).await?;
    let client = clients.lease_client();
    let mut changes = if remove {
        uninstall(&client, &all, flags.dry_run).await
    } else {
        install(&client, &all, flags.dry_run).await
    }?;
    changes.extend(match &master {
        None => Vec::new(),
        Some((folder, None)) => folder.uninstall(flags.dry_run)?,
        Some((folder, Some(authority))) => folder.install(authority, flags.dry_run)?,
    });
    let note = if flags.dry_run { " (dry run)" } else { "" };
    for change in changes {
        println!("{change}{note}");
    }
    Ok(())
}

/// The folder of this master and who signs for it, if one was asked for; nothing is signed for a removal.
fn master(parsed: &Parsed, flags: &InstallFlags, remove: bool) -> anyhow::Result<Option<(Folder, Option<Authority>)>> {
    if flags.config_dir.is_empty() {
        return Ok(None);
    }
    let kubeconfig = &parsed.options.misc.kubeconfig;
    if kubeconfig.is_empty() {
        bail!("--config-dir takes the server's address from --kubeconfig, which is not given");
    }
    let state = parsed.values().get("state-dir").map_or("/var/lib/quarterdeck", String::as_str);
    let folder = Folder {
        config: flags.config_dir.clone().into(),
        state: state.into(),
        owner: flags.config_owner,
        user: flags.user.clone(),
        cluster: folder::cluster(Path::new(kubeconfig), &flags.config_server)?,
    };
    let authority = Authority::load(&flags.cluster_signing_cert_file, &flags.cluster_signing_key_file);
    Ok(Some((folder, if remove { None } else { Some(authority.context("the authority of --config-dir")?) })))
}

fn target(parsed: &Parsed, flags: &InstallFlags) -> Target {
    let election = &parsed.options.election;
    Target {
        user: flags.user.clone(),
        lease_namespace: election.leader_elect_resource_namespace.clone(),
        lease_name: election.leader_elect_resource_name.clone(),
        addons_cluster_admin: flags.addons_cluster_admin,
    }
}

/// What the chosen controllers declare; setting them up does no I/O.
fn needs(manager: &Manager, parsed: &Parsed) -> anyhow::Result<Vec<Needs>> {
    let mut needs = Vec::new();
    for chosen in
        set_up(manager, parsed, &Informers::new(), &prometheus::Registry::new(), &Notes::new(""), &Arc::default())?.0
    {
        if let Chosen::In(unit) = chosen {
            needs.push(Needs {
                descriptor: unit.descriptor(),
                account: unit.account().clone(),
                reads: unit.reads().to_vec(),
                grants: unit.grants().to_vec(),
            });
        }
    }
    Ok(needs)
}

/// Whether those that write whatever they are handed do so under the account that is theirs.
fn have_own_accounts(needs: &[Needs]) -> bool {
    let mut all = needs.iter().filter(|needs| needs.descriptor.writes_anything);
    all.all(|needs| needs.account == Account::system(needs.descriptor.account))
}

/// Writes each manifest as a YAML file of its own.
fn write(folder: &Path, all: &[Manifest]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for manifest in all {
        let path: PathBuf = folder.join(format!("{}.yaml", manifest.name));
        let mut text = String::from("# Generated by hack/generate from what the controllers declare.\n");
        for object in &manifest.objects {
            text.push_str("---\n");
            text.push_str(&yaml(object)?);
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn yaml(object: &Value) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(object)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
