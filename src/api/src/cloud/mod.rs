//! Kinds of the cloud side, group `cloud.quarterdeck.dev`.

/// Has a type with `metadata`, `spec` and an optional `status` be a kind of the cloud side.
macro_rules! kind {
    ($type:ident, $plural:literal, $scope:ty) => {
        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = $crate::cloud::API_VERSION;
            const GROUP: &'static str = $crate::cloud::GROUP;
            const KIND: &'static str = stringify!($type);
            const VERSION: &'static str = $crate::cloud::VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl k8s_openapi::Metadata for $type {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct as _;
                let fields = 4 + usize::from(self.status.is_some());
                let mut object = serializer.serialize_struct(stringify!($type), fields)?;
                object.serialize_field("apiVersion", $crate::cloud::API_VERSION)?;
                object.serialize_field("kind", stringify!($type))?;
                object.serialize_field("metadata", &self.metadata)?;
                object.serialize_field("spec", &self.spec)?;
                if let Some(status) = &self.status {
                    object.serialize_field("status", status)?;
                }
                object.end()
            }
        }
    };
}

pub mod account;
pub mod metal;
pub mod pool;
pub mod range;

/// API group of the cloud side.
pub const GROUP: &str = "cloud.quarterdeck.dev";
/// The one API version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` as objects carry it.
pub const API_VERSION: &str = "cloud.quarterdeck.dev/v1alpha1";
