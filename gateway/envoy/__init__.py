"""The data plane: contracts and routes compiled to Envoy resources, served by delta ADS."""
