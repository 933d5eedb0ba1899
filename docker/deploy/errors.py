"""What can go wrong in a deployment, in words that say what to do."""


class DeployError(Exception):
    """A step of a deployment failed; the message says which and what helps."""
