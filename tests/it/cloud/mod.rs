//! Clouds.

mod plugin;
mod plugin_shim;
mod plugin_template;
