"""The gateway: contracts from signatures, Envoy configuration from contracts, and the control plane's servers."""
