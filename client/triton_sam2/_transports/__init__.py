"""Requests on the wire: gRPC and HTTP, addresses, credentials, statuses."""
