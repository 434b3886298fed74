"""How pages are made: templates, language, theme, and how numbers and times are written."""

from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from scp_node.console import charts
from scp_node.console.access import Visitor
from scp_node.console.texts import LANGUAGES, speaker, translator
from scp_node.figures import agreeing
from scp_node.jobs.records import PredictionRecord

FOLDER = Path(__file__).parent
THEMES = ("dark", "light")
_PAGES = ("text/html", "application/xhtml+xml")


def render(request: Request, template: str, values: dict[str, Any], *, status_code: int = 200) -> HTMLResponse:
    """Make a page in the visitor's language and theme."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    language = language_of(request)
    cookie = request.cookies.get("scp-node-theme", "")
    shared = {
        "_": translator(language),
        "say": speaker(language),
        "language": language,
        "theme": cookie if cookie in THEMES else THEMES[0],
        "visitor": visitor,
        "role": None if visitor is None else visitor.role.value,
        "change_token": visitor.session.change_token if visitor is not None and visitor.session else "",
        "path": request.url.path,
        "version": version("scp-node"),
        "now": datetime.now(UTC),
    }
    content = environment().get_template(template).render({**shared, **values})
    return HTMLResponse(content, status_code=status_code, headers={"content-language": language})


def render_problem(request: Request, status: int, detail: str) -> HTMLResponse:
    """A page that says what went wrong."""
    return render(request, "problem.html", {"status": status, "detail": detail}, status_code=status)


def wants_page(request: Request) -> bool:
    """Whether a browser asks for something to show, as against a program or a part of a page."""
    if request.url.path.startswith(("/api/", "/dicom-web/", "/health/", "/metrics")):
        return False
    return any(kind in request.headers.get("accept", "") for kind in _PAGES)


def language_of(request: Request) -> str:
    """The language chosen in the page, else the first of the browser's that is spoken here, else English."""
    chosen = request.cookies.get("scp-node-language", "")
    if chosen in LANGUAGES:
        return chosen
    for one in request.headers.get("accept-language", "").split(","):
        language = one.split(";")[0].split("-")[0].strip().lower()
        if language in LANGUAGES:
            return language
    return LANGUAGES[0]


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates, with everything escaped and nothing undefined."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "time": moment,
        "ago": ago,
        "seconds": seconds,
        "size": size,
        "percent": percent,
        "decimal": decimal,
        "thousands": lambda value: f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
    }
    made.globals |= {"charts": charts, "asset": _asset, "percents": percents}
    return made


def moment(value: datetime | None) -> Markup:
    """A time as a machine-readable element; the page shows it in the reader's own time zone."""
    if value is None:
        return Markup("–")
    utc = value.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"), utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    )


def ago(value: datetime | None) -> str:
    """How long ago, roughly."""
    return "–" if value is None else seconds((datetime.now(UTC) - value).total_seconds())


def seconds(value: float | None) -> str:
    """A duration for people: ``0.83 s``, ``12 s``, ``5 min``, ``3 h``, ``2 d``."""
    if value is None:
        return "–"
    for limit, divisor, unit in ((90.0, 1.0, "s"), (5400.0, 60.0, "min"), (129600.0, 3600.0, "h")):
        if abs(value) < limit:
            number = value / divisor
            return f"{number:.2f} {unit}" if unit == "s" and number < 10 else f"{number:.0f} {unit}"
    return f"{value / 86400:.0f} d"


def size(value: float | None) -> str:
    """A number of bytes for people."""
    if value is None:
        return "–"
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if value >= 1000**power:
            return f"{value / 1000**power:.1f} {unit}"
    return f"{value:.0f} B"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share of one in percent."""
    return "–" if value is None else f"{value * 100:.{decimals}f} %"


def percents(said: PredictionRecord) -> tuple[str, str]:
    """Probability and threshold in percent, with as many digits as it takes not to contradict the verdict."""
    probability, threshold = agreeing(
        said.probability, said.threshold, is_positive=said.is_positive, decimals=1, in_percent=True
    )
    return f"{probability} %", f"{threshold.rstrip('0').rstrip('.')} %"


def decimal(value: float | None) -> str:
    """A number without trailing zeros."""
    return "–" if value is None else f"{value:g}"


def _asset(name: str) -> str:
    """Address of a shipped file; changes with it, so that browsers may keep it for long."""
    return f"/assets/{name}?v={_stamp(name)}"


@lru_cache(maxsize=64)
def _stamp(name: str) -> str:
    return f"{(FOLDER / 'assets' / name).stat().st_mtime_ns:x}"
