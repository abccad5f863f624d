"""Providers with an API of their own, each behind `gateway.dialect`. `registry` says which provider speaks which."""
