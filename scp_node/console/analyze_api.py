"""POST /api/v1/analyze: files in, what the models say out; nothing is kept."""

import csv
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from scp_node.console.explorer import PICTURE_SIZE, ExplorerError
from scp_node.console.requests import AnyVisitor, OpenServices
from scp_node.console.services import Services
from scp_node.console.uploads import Upload
from scp_node.jobs.records import InstanceDetail

router = APIRouter(prefix="/api/v1", tags=["analyze"])

NDJSON = "application/x-ndjson"
CSV = "text/csv"
_PICTURES = 60
"""Files of one request whose pictures are sent: a megabyte each, all at once in a page's or this process's memory."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Outcome(StrEnum):
    """What became of one file."""

    ANALYSED = "analysed"
    NOT_ELIGIBLE = "not_eligible"
    UNREADABLE = "unreadable"
    FAILED = "failed"


class Picture(BaseModel):
    """The radiograph as it is shown.

    ``png``: Base64 of a grey 8-bit PNG.
    """

    rows: int
    columns: int
    png: str


class ModelPrediction(BaseModel):
    """What one model says; ``saliency``: Base64 of a grey 8-bit PNG over the whole picture, 255 = strongest."""

    model: str
    title: str
    version: str
    target_layer: str
    preprocessing: str
    weights_sha256: str
    probability: Annotated[float, Field(ge=0, le=1)]
    threshold: float
    is_threshold_overridden: bool
    is_positive: bool
    has_evidence: bool
    saliency: str | None


class Judged(BaseModel):
    """One file and what became of it.

    ``reason`` and ``detail`` say why it was not judged; ``information`` holds technical attributes only.
    """

    name: str
    outcome: Outcome
    reason: str | None
    detail: str
    information: dict[str, Any]
    window: dict[str, Any] | None
    notes: list[str]
    predictions: list[ModelPrediction]
    picture: Picture | None
    duration_s: float


class Results(BaseModel):
    """All files of one request, in their order; a ZIP file counts as the files in it."""

    results: list[Judged]


_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "DICOM, PNG, JPEG, or a ZIP file of these.",
                        }
                    },
                }
            }
        },
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No form with files."},
    413: {"description": "Larger than console.maximum_upload_bytes."},
    503: {"description": "The models cannot be loaded, or too many files wait."},
}


@router.post(
    "/analyze",
    response_model=Results,
    openapi_extra=_FORM,
    responses={200: {"content": {NDJSON: {}, CSV: {}}}, **_PROBLEMS},
)
async def analyze(
    request: Request,
    services: OpenServices,
    _visitor: AnyVisitor,
    pictures: Annotated[
        bool, Query(description=f"With the picture and the saliency maps, of {_PICTURES} files at most.")
    ] = False,
) -> Response:
    """Judge files; nothing is kept.

    ``Accept: application/x-ndjson`` gives one JSON object a line as they come: ``{"event": "judged", ...}`` for each
    file, others in between, ``{"event": "end"}`` last. ``Accept: text/csv`` gives a table.
    """
    async with AsyncExitStack() as opened:
        opened.enter_context(services.place_in_line())
        folder = opened.enter_context(services.uploads.folder())
        uploads = await services.uploads.receive(request, folder)
        size = PICTURE_SIZE if pictures else 0
        accept = request.headers.get("accept", "")
        if NDJSON in accept:
            # The folder must live as long as the answer does.
            return StreamingResponse(
                _lines(services, uploads, folder, size, opened.pop_all()), media_type=f"{NDJSON}; charset=utf-8"
            )
        results: list[dict[str, Any]] = []
        async for one in services.uploads.expand(uploads, folder):
            results.append(await _judge(services, one, size if len(results) < _PICTURES else 0))
    if CSV in accept:
        headers = {"content-disposition": 'attachment; filename="scp-node-results.csv"'}
        return Response(to_csv(results), media_type=f"{CSV}; charset=utf-8", headers=headers)
    return JSONResponse({"results": results})


@router.post(
    "/analyze/objects",
    openapi_extra=_FORM,
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {}}, "description": "ZIP file of result objects and pictures."},
        422: {"description": "The file cannot be judged."},
        **_PROBLEMS,
    },
)
async def objects(request: Request, services: OpenServices, _visitor: AnyVisitor) -> Response:
    """Judge one file and return what the node would send: Secondary Captures and reports (DICOM), and pictures (PNG).

    Of PNG and JPEG files pictures only: DICOM objects need a patient and a study to belong to.
    """
    with services.place_in_line(), services.uploads.folder() as folder:
        uploads = await services.uploads.receive(request, folder)
        if len(uploads) != 1:
            raise HTTPException(422, "one file at a time")
        made = folder / "objects"
        made.mkdir(mode=0o700)
        result = await anyio.to_thread.run_sync(
            lambda: services.explorer.analyse(uploads[0].file, uploads[0].name, objects_folder=made)
        )
        if result["outcome"] != Outcome.ANALYSED:
            raise HTTPException(422, result["detail"])
        content = await anyio.to_thread.run_sync(_zip, made)
    headers = {"content-disposition": 'attachment; filename="scp-node-results.zip"'}
    return Response(content, media_type="application/zip", headers=headers)


@router.post(
    "/instances/{instance_id}/analyze",
    response_model=Judged,
    responses={404: {"description": "No such instance."}, 503: _PROBLEMS[503]},
)
async def analyze_instance(
    instance_id: int, services: OpenServices, _visitor: AnyVisitor, pictures: bool = False
) -> Response:
    """Judge a received instance once more, for looking at it; its results and state stay as they are."""
    detail: InstanceDetail = await anyio.to_thread.run_sync(services.admin.show, str(instance_id))
    if not detail.file.exists():
        raise HTTPException(404, "the file is gone: retention has removed it")
    upload = Upload(name=f"#{instance_id}", file=detail.file, size_bytes=detail.size_bytes)
    with services.place_in_line():
        return JSONResponse(await _judge(services, upload, PICTURE_SIZE if pictures else 0))


async def _lines(
    services: Services, uploads: list[Upload], folder: Path, size: int, opened: AsyncExitStack
) -> AsyncIterator[str]:
    async with opened:
        count = 0
        if not services.explorer.is_loaded:
            yield _line("loading")
        try:
            async for upload in services.uploads.expand(uploads, folder):
                count += 1
                yield _line("judging", name=upload.name, number=count, is_entry=upload.is_entry)
                yield _line("judged", **await _judge(services, upload, size if count <= _PICTURES else 0))
        except ExplorerError as error:
            yield _line("failed", detail=str(error))
            return
        yield _line("end", count=count)


def _line(event: str, **values: object) -> str:
    return json.dumps({"event": event, **values}, ensure_ascii=False) + "\n"


async def _judge(services: Services, upload: Upload, size: int) -> dict[str, Any]:
    if upload.problem:
        return {
            "name": upload.name,
            "outcome": Outcome.UNREADABLE.value,
            "reason": "unreadable",
            "detail": upload.problem,
            "information": {"size_bytes": upload.size_bytes},
            "window": None,
            "notes": [],
            "predictions": [],
            "picture": None,
            "duration_s": 0.0,
        }
    result = await anyio.to_thread.run_sync(
        lambda: services.explorer.analyse(upload.file, upload.name, picture_size=size)
    )
    result.pop("objects")
    return {"name": upload.name, **result}


def _zip(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return buffer.getvalue()


def to_csv(results: list[dict[str, Any]]) -> str:
    """One line per file; what a spreadsheet would take for a formula is made text."""
    models = list(dict.fromkeys(one["model"] for result in results for one in result["predictions"]))
    columns = ["file", "outcome", "reason", "detail"]
    columns += [f"{model}_{kind}" for model in models for kind in ("probability", "threshold", "is_positive")]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*columns, "duration_s"])
    for result in results:
        said = {one["model"]: one for one in result["predictions"]}
        row: list[object] = [result["name"], result["outcome"], result["reason"] or "", result["detail"]]
        for model in models:
            one = said.get(model)
            row += ["", "", ""] if one is None else [one["probability"], one["threshold"], one["is_positive"]]
        writer.writerow([_harmless(value) for value in (*row, result["duration_s"])])
    return text.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
