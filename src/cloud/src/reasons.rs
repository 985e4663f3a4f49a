//! Reasons of the Events about providers, which whichever controller of clouds comes first makes.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// The provider refuses the credentials.
    DENIED = Warning "CloudProviderDenied" about "Namespace";
    /// It cannot be reached, or does not answer.
    UNREACHABLE = Warning "CloudProviderUnreachable" about "Namespace";
    /// It is well again.
    RECOVERED = Normal "CloudProviderRecovered" about "Namespace";
    /// It is another one than before.
    CHANGED = Warning "CloudProviderChanged" about "Namespace";
    /// The socket of a plug-in appeared, and it is used.
    JOINED = Normal "CloudPluginJoined" about "Namespace";
    /// A plug-in is not used.
    REFUSED = Warning "CloudPluginRefused" about "Namespace";
}
