"""The results of one analysis to a Storage SCP: the node's sender against pynetdicom as its documentation shows it."""

import tempfile
from pathlib import Path

from benchmarks import servers
from benchmarks.contest import Contestant, Row, compare

TITLE = "Deliver: six objects of one analysis, pictures in JPEG, to DCMTK storescp"
PEER = "pynetdicom's send_c_store"
CONTESTANTS = (
    Contestant(title=PEER, factory="benchmarks.deliver:example", is_reference=True),
    Contestant(title="scp-node", factory="benchmarks.deliver:node"),
    Contestant(title="scp-node, while more waits", factory="benchmarks.deliver:node", arguments={"is_more": True}),
)


def measure(*, rounds: int) -> list[Row]:
    """Write the results once, then have each contestant send them in turn."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        files = _write(folder / "results")
        with servers.running(servers.tuned_storescp(folder / "pacs")) as peer:
            arguments = {"files": files, "port": peer.port, "ae_title": peer.ae_title}
            return compare(CONTESTANTS, arguments, rounds=rounds, calls=5)


def _write(folder: Path) -> list[str]:
    from datetime import UTC, datetime

    from benchmarks.objects import analysis
    from config.results import ResultSettings
    from scp_node.results.catalog import build_results

    folder.mkdir()
    settings = ResultSettings.model_validate(
        {"secondary_capture": {"transfer_syntax": "jpeg"}, "report": {"sop_class": "comprehensive"}}
    )
    files = []
    for made in build_results(analysis(), settings, made_at=datetime.now(UTC)):
        file = folder / f"{made.sop_instance_uid}.dcm"
        file.write_bytes(made.encode())
        files.append(str(file))
    return files


def node(files: list[str], port: int, ae_title: str, is_more: bool = False):
    from pydicom import dcmread

    from config.destinations import DicomDestination
    from scp_node.delivery.catalog import send
    from scp_node.delivery.keeping import Associations
    from scp_node.records import Outgoing, Verdict

    destination = DicomDestination(name="pacs", ae_title=ae_title, host="127.0.0.1", port=port)
    objects = []
    for file in map(Path, files):
        dataset = dcmread(file, stop_before_pixels=True)
        objects.append(
            Outgoing(
                file=file,
                sop_class_uid=dataset.SOPClassUID,
                sop_instance_uid=dataset.SOPInstanceUID,
                transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
                group=dataset.SOPInstanceUID,
                size_bytes=file.stat().st_size,
            )
        )
    associations = Associations()

    def run():
        outcomes = send(
            objects,
            destination,
            calling_ae_title="SCP_NODE",
            associations=associations,
            is_more=lambda: is_more,
        )
        if any(outcome.verdict is not Verdict.CONFIRMED for outcome in outcomes) or len(outcomes) != len(objects):
            raise RuntimeError(f"not all were stored: {outcomes}")

    return run


def example(files: list[str], port: int, ae_title: str):
    """A data set is read and given to an association, as in pynetdicom's documentation of C-STORE.

    On a busy machine its association's own thread now and then takes the answer: then all is sent again.
    """
    from pydicom import dcmread
    from pynetdicom import AE

    def attempt():
        datasets = [dcmread(file) for file in files]
        entity = AE("EXAMPLE")
        entity.dimse_timeout = 5
        for dataset in datasets:
            entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", port, ae_title=ae_title)
        is_stored = all(association.send_c_store(dataset).get("Status") == 0 for dataset in datasets)
        association.release()
        return is_stored

    def run():
        if not any(attempt() for _ in range(3)):
            raise RuntimeError("an object was not stored")

    return run
