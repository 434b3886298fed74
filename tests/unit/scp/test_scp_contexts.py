"""What is accepted, and which transfer syntax is taken when a peer offers a choice."""

import pytest
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from pynetdicom.presentation import build_context, negotiate_as_acceptor

from scp_node.scp.contexts import REPORT_CLASSES, SOP_CLASSES, in_order_of_preference, supported_contexts

SYNTAXES = [JPEGBaseline8Bit, JPEG2000Lossless, ImplicitVRLittleEndian, RLELossless, ExplicitVRLittleEndian]


def test_the_sop_classes_are_radiographs_and_secondary_captures() -> None:
    assert {UID(uid).keyword for uid in SOP_CLASSES} == {
        "ComputedRadiographyImageStorage",
        "DigitalXRayImageStorageForPresentation",
        "DigitalXRayImageStorageForProcessing",
        "SecondaryCaptureImageStorage",
        "MultiFrameSingleBitSecondaryCaptureImageStorage",
        "MultiFrameGrayscaleByteSecondaryCaptureImageStorage",
        "MultiFrameGrayscaleWordSecondaryCaptureImageStorage",
        "MultiFrameTrueColorSecondaryCaptureImageStorage",
    }


def test_nothing_but_verification_and_storage_is_offered() -> None:
    offered = [context.abstract_syntax for context in supported_contexts(SYNTAXES)]
    assert offered == ["1.2.840.10008.1.1", *SOP_CLASSES, *REPORT_CLASSES]


def test_exactly_the_given_transfer_syntaxes_are_accepted_for_every_image_class() -> None:
    images = [context for context in supported_contexts(SYNTAXES) if context.abstract_syntax in SOP_CLASSES]
    assert len(images) == len(SOP_CLASSES)
    for context in images:
        assert set(context.transfer_syntax) == set(SYNTAXES)


def test_returning_reports_are_taken_as_they_were_sent() -> None:
    """Every report that the node makes can come back, or a PACS that forwards everything would fail on it for ever."""
    assert {UID(uid).keyword for uid in REPORT_CLASSES} == {
        "Comprehensive3DSRStorage",
        "ComprehensiveSRStorage",
        "EnhancedSRStorage",
        "BasicTextSRStorage",
    }
    for context in supported_contexts(SYNTAXES):
        if context.abstract_syntax in REPORT_CLASSES:
            assert set(context.transfer_syntax) == {ImplicitVRLittleEndian, ExplicitVRLittleEndian}


def test_lossless_and_cheap_comes_first() -> None:
    order = in_order_of_preference([HTJ2K, JPEG2000, *SYNTAXES, JPEGLosslessSV1, ExplicitVRBigEndian, RLELossless])
    assert order == (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEGLosslessSV1,
        JPEG2000Lossless,
        HTJ2K,
        JPEG2000,
        JPEGBaseline8Bit,
    )


@pytest.mark.parametrize(
    ("proposed", "taken"),
    [
        ([JPEGBaseline8Bit, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([JPEGBaseline8Bit], JPEGBaseline8Bit),
        ([JPEG2000Lossless, RLELossless], RLELossless),
    ],
)
def test_a_sender_that_offers_a_choice_loses_nothing(proposed: list[UID], taken: UID) -> None:
    context = build_context(SOP_CLASSES[0], proposed)
    context.context_id = 1
    results, _ = negotiate_as_acceptor([context], supported_contexts(SYNTAXES))
    assert results[0].result == 0
    assert results[0].transfer_syntax == [taken]


def test_negotiating_leaves_the_shared_contexts_as_they_are() -> None:
    """They are not copied for each connection."""
    shared = supported_contexts(SYNTAXES)
    before = [(context.context_id, context.abstract_syntax, list(context.transfer_syntax)) for context in shared]
    context = build_context(SOP_CLASSES[0], JPEGBaseline8Bit)
    context.context_id = 1
    results, _ = negotiate_as_acceptor([context], shared, {SOP_CLASSES[0]: (True, True)})
    assert all(result is not own for result in results for own in shared)
    assert [(c.context_id, c.abstract_syntax, list(c.transfer_syntax)) for c in shared] == before
    assert all(c.result is None for c in shared)


def test_no_transfer_syntax_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="transfer syntax"):
        supported_contexts([])
