"""The coordinator's app, from the installed package."""

from nnunet_fedmepd.deployment.flower.server_app import app

__all__ = ["app"]
