"""Which adapters there are, and the routes of those that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.routing import Route

from front.service import FrontService
from front.tools import cvat, label_studio, qupath, roboflow, x_anylabeling
from front.tools.image_fetching import ImageFetcher
from front.tools.settings import ToolSettings

_Routes = Callable[[FrontService, ToolSettings, ImageFetcher], list[Route]]
TOOLS: Mapping[str, _Routes] = {
    label_studio.NAME: lambda *parts: label_studio.LabelStudio(*parts).routes(),
    cvat.NAME: lambda *parts: cvat.Cvat(*parts).routes(),
    x_anylabeling.NAME: lambda *parts: x_anylabeling.XAnyLabeling(*parts).routes(),
    qupath.NAME: lambda *parts: qupath.QuPath(*parts).routes(),
    roboflow.NAME: lambda *parts: roboflow.Roboflow(*parts).routes(),
}


def tool_routes(service: FrontService, settings: ToolSettings) -> list[Route]:
    """For a Starlette application; none where no tool was asked for."""
    fetcher = ImageFetcher(settings.image_hosts, settings.limits)
    return [route for name in settings.names for route in TOOLS[name](service, settings, fetcher)]
