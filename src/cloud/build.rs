//! Generates the code of the plug-in protocol; needs no protoc.

use std::error::Error;

const ROOT: &str = "proto";
const FILE: &str = "proto/quarterdeck/cloudprovider/v1/cloudprovider.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={FILE}");
    // Without the feature nothing is compiled that would include it.
    if std::env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    let files = protox::compile([FILE], [ROOT])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
