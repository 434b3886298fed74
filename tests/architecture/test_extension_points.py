"""One line in a catalog is all it takes: a new result, destination kind and runtime reach the paths that use them.

The fourth model, the other extension point, is the example of docs/models.md: tests/unit/inference/models.
"""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from config.analysis import AnalysisSettings
from config.results import ResultSettings
from inference.engine import Engine
from inference.records import Analysis
from inference.runtime import catalog as runtimes
from scp_node.delivery import catalog as destinations
from scp_node.delivery.records import EchoOutcome
from scp_node.demo.phantoms import cr
from scp_node.records import ObjectOutcome, Outgoing, ResultKind, Verdict
from scp_node.results import catalog as results


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "source.dcm"
    cr().save_as(file, enforce_file_format=True)
    return file


class _EverySeen:
    """A runtime that says 0 of everything, without torch."""

    name = "planted"

    def run(self, batch):
        return np.zeros(len(batch), np.float32), np.ones((len(batch), 7, 7), np.float32)


@pytest.fixture
def analysis(source, random_checkpoints, monkeypatch):
    monkeypatch.setitem(runtimes.RUNTIMES, "planted", lambda folder, manifest, placement: _EverySeen())
    settings = AnalysisSettings(checkpoints=random_checkpoints).model_copy(update={"runtime": "planted"})
    engine = Engine(settings)
    outcome = engine.analyse(source)
    assert isinstance(outcome, Analysis)
    return outcome


def test_a_runtime_runs_the_models(analysis):
    assert [p.probability for p in analysis.predictions] == pytest.approx([0.5] * 3)


def test_a_result_is_built_after_those_it_refers_to(analysis, monkeypatch):
    seen = []

    def build(case, earlier):
        seen.extend(item.kind for item in earlier)
        return (replace(earlier[0], group="planted"),)

    planted = results.Builder(name="planted", is_wanted=lambda settings: True, build=build)
    monkeypatch.setattr(results, "BUILDERS", (*results.BUILDERS, planted))
    built = results.build_results(analysis, ResultSettings(), made_at=datetime.now(UTC))
    assert built[-1].group == "planted"
    assert set(seen) == set(ResultKind)


def test_a_destination_kind_is_sent_to_and_asked(tmp_path, monkeypatch):
    sent = []

    def send(objects, destination, *, calling_ae_title, report, is_wanted, associations, is_more):
        # Nothing of this kind stays open between two attempts.
        assert not is_more()
        del destination, calling_ae_title, is_wanted, associations
        for item in objects:
            outcome = ObjectOutcome(sop_instance_uid=item.sop_instance_uid, verdict=Verdict.CONFIRMED, status=None)
            sent.append(outcome)
            report(outcome)
        return sent

    def echo(destination, *, calling_ae_title):
        return EchoOutcome(is_reachable=True, is_present=True, duration_s=0.0, detail=f"asked by {calling_ae_title}")

    monkeypatch.setitem(destinations.SENDERS, "planted", destinations.Sender(send=send, echo=echo))
    there = SimpleNamespace(kind="planted", name="there", calling_ae_title=None)
    item = Outgoing(
        file=tmp_path / "object.dcm",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        sop_instance_uid="2.25.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        group="montage",
    )
    assert destinations.send([item], there, calling_ae_title="SCP_NODE") == sent
    assert len(sent) == 1
    assert "SCP_NODE" in destinations.echo(there, "SCP_NODE").detail
