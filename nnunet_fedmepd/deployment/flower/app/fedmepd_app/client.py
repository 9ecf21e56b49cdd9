"""No site runs this: sites take their tasks themselves, and execute nothing that they are sent."""

from flwr.clientapp import ClientApp

app = ClientApp()
