"""Clients that openapi-generator writes from the OpenAPI document: generated, compiled, and tried on a service."""
