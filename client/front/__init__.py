"""A front for the SAM 2 server: it reads every message before Triton does, knows its callers, speaks REST.

Towards callers: the Open Inference Protocol over HTTP and gRPC, and a REST interface for people. Towards
Triton: gRPC only, with messages that were read, checked and written anew.
"""
