"""The receiver of a process: objects in, files and jobs out. Runs no job and never launches the durable engine."""

from config.destinations import DicomDestination
from config.receiver import ReceiverSettings
from inference.imaging.decoders import available_transfer_syntaxes
from scp_node.delivery.commitment import ReportError, decode_report
from scp_node.jobs.intake import Filing
from scp_node.jobs.reports import Reports
from scp_node.jobs.roles import Shared
from scp_node.results.uids import IMPLEMENTATION_CLASS_UID, implementation_version_name
from scp_node.scp.notices import Notice, Notify
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver


class Receiving:
    """Accepts associations and files what they bring."""

    def __init__(self, shared: Shared) -> None:
        settings = shared.settings
        filing = Filing(
            shared.engine,
            shared.jobs,
            shared.spool,
            models=settings.analysis.models,
            destinations=tuple(destination.name for destination in settings.destinations),
            limits=settings.spool,
        )
        self._receiver = Receiver(
            settings.receiver,
            shared.spool,
            filing.accept,
            available_transfer_syntaxes(),
            implementation=Implementation(
                class_uid=IMPLEMENTATION_CLASS_UID, version_name=implementation_version_name()
            ),
            port=shared.receiver_port,
            sink=shared.sink,
            notify=_notify(shared),
        )

    @property
    def port(self) -> int:
        """The port it listens on; only while it runs."""
        return self._receiver.port

    def start(self) -> None:
        """Listen."""
        self._receiver.start()

    def reload(self, settings: ReceiverSettings) -> bool:
        """Decide by other callers, and read certificates again; False when these cannot be used."""
        return self._receiver.reload(settings)

    def stop(self, timeout_s: float) -> None:
        """Accept nothing more, let open associations end within the limit."""
        self._receiver.stop(timeout_s)


def _notify(shared: Shared) -> Notify | None:
    """Return what takes Storage Commitment reports; None where no destination is asked for any."""
    destinations = shared.settings.destinations
    if not any(isinstance(one, DicomDestination) and one.storage_commitment for one in destinations):
        return None
    reports = Reports(shared.engine, shared.jobs, destinations)

    def notify(notice: Notice) -> bool:
        try:
            report = decode_report(notice.event_type_id, notice.content, notice.transfer_syntax_uid)
        except ReportError:
            return False
        return reports.accept(report)

    return notify
