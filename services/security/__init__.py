"""Who may call: TLS with certificates that are renewed in place, and bearer tokens with scopes."""
