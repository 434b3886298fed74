"""The one place an output object is added: which results there are, and in which order they are built."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from config.results import ResultSettings
from inference.records import Analysis
from scp_node.errors import ResultError
from scp_node.results import secondary_capture, structured_report, text_summary
from scp_node.results.case import Case, Each, ResultObject, open_case
from scp_node.results.predecessors import Predecessor


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """How results of one sort are made.

    Parameters
    ----------
    name
        For messages.
    is_wanted
        Whether the settings ask for it.
    build
        Makes the objects of one analysis; gets those of the builders before it, to refer to them.
    """

    name: str
    is_wanted: Callable[[ResultSettings], bool]
    build: Callable[[Case, tuple[ResultObject, ...]], tuple[ResultObject, ...]]


BUILDERS: tuple[Builder, ...] = (
    Builder(
        name="pictures",
        is_wanted=lambda settings: settings.secondary_capture.montage or settings.secondary_capture.singles,
        build=secondary_capture.build,
    ),
    Builder(
        name="measurement report",
        is_wanted=lambda settings: settings.report.measurement_report,
        build=structured_report.build,
    ),
    Builder(
        name="text summary",
        is_wanted=lambda settings: settings.report.text_summary,
        build=text_summary.build,
    ),
)


def build_results(
    analysis: Analysis,
    settings: ResultSettings,
    *,
    made_at: datetime,
    predecessors: tuple[Predecessor, ...] = (),
    each: Each = map,
) -> tuple[ResultObject, ...]:
    """Build everything that is sent back for one analysis.

    Parameters
    ----------
    analysis
        Of a DICOM object; its file is read again for the encoded bytes of names.
    made_at
        Time of the analysis, aware. It becomes content and creation dates and times: in the source's time zone where
        the source states one (0008,0201), as it stands otherwise, so pass local time. No UID depends on it.
    predecessors
        Reports that were sent before and that these replace; each report names those of its kind.
    each
        Calls a function for each of several things, in their order or at once.

    Returns
    -------
    Pictures first, then reports. A repeat gives the same UIDs and pixels.

    Raises
    ------
    ResultError
        No result can be built for this input.
    ValueError
        ``made_at`` has no time zone.
    """
    case = open_case(analysis, settings, made_at, predecessors, each)
    results: tuple[ResultObject, ...] = ()
    for builder in BUILDERS:
        if builder.is_wanted(settings):
            try:
                results += builder.build(case, results)
            except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
                detail = f"{builder.name} cannot be built: {type(error).__name__}"
                raise ResultError(case.sop_instance_uid, detail) from error
    return results
