"""Tool manifests out of OpenAPI 3 documents. Pure: a document in; manifests, and what they could not say, out."""

from paracle_client.openapi.convert import Imported, convert

__all__ = ["Imported", "convert"]
