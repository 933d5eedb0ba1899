"""What can go wrong on the way to a running server. Every error carries its remedy."""


class LauncherError(Exception):
    """Something is missing or wrong; `remedy` says what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy


class InstallationError(LauncherError):
    """A part of the Triton installation is missing or of the wrong version."""


class RepositoryError(LauncherError):
    """The model repository is missing, incomplete or unreadable."""


class PortError(LauncherError):
    """A port cannot be bound."""


class SharedMemoryError(LauncherError):
    """The shared memory of this machine or container is too small."""


class AlreadyRunningError(LauncherError):
    """Another launcher holds this state directory."""


class StartError(LauncherError):
    """tritonserver did not become ready."""


class CrashError(LauncherError):
    """tritonserver or one of its models crashed, and nobody was to start it again."""
