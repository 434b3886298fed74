"""What this node accepts: SOP Classes x transfer syntaxes. Few, since every association negotiates them all."""

from collections.abc import Sequence

from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EnhancedSRStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

SOP_CLASSES: tuple[UID, ...] = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""Storage SOP Classes (PS3.4 B.5). Those that are never judged are taken too: better a reason in the job list than a
refusal that stops the sender's queue."""

REPORT_CLASSES: tuple[UID, ...] = (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    BasicTextSRStorage,
)
"""What the node's own reports are. A PACS that forwards a whole study sends them back: refused, they would keep its
forwarding job failing for ever; taken, they are recognised and dropped. Foreign reports end as not eligible."""

_PREFERENCE: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
)
"""The first that a peer proposes is taken. Where one context offers a choice, the sender converts: nothing may be lost
on the way, so lossless comes before lossy; and among these what is cheapest to decode (uncompressed 4 ms, RLE 44, JPEG
Lossless 61, JPEG-LS 151, JPEG 2000 800 ms for 3000 x 3000)."""

_UNENCAPSULATED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def in_order_of_preference(transfer_syntaxes: Sequence[str]) -> tuple[UID, ...]:
    """Sort transfer syntaxes: lossless first, then cheapest first; those without a rank keep their order at the end."""
    ranks = {uid: rank for rank, uid in enumerate(_PREFERENCE)}
    distinct = dict.fromkeys(UID(uid) for uid in transfer_syntaxes)
    return tuple(sorted(distinct, key=lambda uid: ranks.get(uid, len(ranks))))


def supported_contexts(transfer_syntaxes: Sequence[str], *, with_commitment: bool = False) -> list[PresentationContext]:
    """Return the presentation contexts of the acceptor: Verification, images in all `transfer_syntaxes`, reports.

    Parameters
    ----------
    with_commitment
        Storage Commitment too, of which the peer is the provider and this node the user (PS3.4 J.3.3): a peer may open
        an association to report on a transaction.

    Raises
    ------
    ValueError
        No transfer syntax was given.
    """
    if not transfer_syntaxes:
        raise ValueError("at least one transfer syntax is needed")
    ordered = list(in_order_of_preference(transfer_syntaxes))
    return [
        build_context(Verification, list(_UNENCAPSULATED)),
        *(build_context(sop_class, ordered) for sop_class in SOP_CLASSES),
        *(build_context(sop_class, list(_UNENCAPSULATED)) for sop_class in REPORT_CLASSES),
        *([_commitment_context()] if with_commitment else []),
    ]


def _commitment_context() -> PresentationContext:
    context = build_context(StorageCommitmentPushModel, list(_UNENCAPSULATED))
    # As roles of the requestor (PS3.7 D.3.3.4): provider, never user. A peer that negotiates no roles is taken too.
    context.scu_role, context.scp_role = False, True
    return context
