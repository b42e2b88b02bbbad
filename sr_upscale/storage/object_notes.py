"""Small objects that are their text, written under conditions that the store itself holds: what claims are made of."""

from __future__ import annotations

import json

from sr_upscale.errors import OutputError
from sr_upscale.storage.objects import NOTE, Note, read_note
from sr_upscale.storage.stores import code_of, patient, store_of, told


@patient
def write_note(address: str, text: str, *, replaces: str | None) -> Note | None:
    """Writes a small object in the place of one of its versions, or where none is.

    Args:
        address: Of the object.
        text: See `Note`. Another one at every call, since an answer may be lost.
        replaces: The version; None where there must be none.

    Returns:
        What stands there then: this text, or what was in the way; None where that has gone.

    Raises:
        OutputError: It may not be written, or the store knows no conditions.
        NetworkError: The store cannot be reached.
    """
    store = store_of(address)
    bucket, key, _ = store.split_path(address)
    with told(address, OutputError):
        try:
            if address.startswith("gs:"):
                info = store.call(
                    "POST",
                    f"{store._location}/upload/storage/v1/b/{bucket}/o",
                    uploadType="multipart",
                    ifGenerationMatch=replaces or "0",
                    headers={"Content-Type": 'multipart/related; boundary="==0=="'},
                    data=_GOOGLE_NOTE.format(json.dumps({"name": key, "metadata": {NOTE: text}}), text).encode(),
                    json_out=True,
                )
                return Note(text=text, version=str(info["generation"]))
            condition = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
            info = store.call_s3(
                "put_object", Bucket=bucket, Key=key, Body=text.encode(), Metadata={NOTE: text}, **condition
            )
            return Note(text=text, version=info["ETag"])
        except Exception as error:
            if not _is_refused(error) and not (replaces is not None and isinstance(error, FileNotFoundError)):
                raise
    return read_note(address)


@patient
def remove_note(address: str, version: str | None) -> None:
    """Removes a small object, if it is still of this version; None is any.

    Raises:
        OutputError: It may not be removed.
        NetworkError: The store cannot be reached.
    """
    store = store_of(address)
    bucket, key, _ = store.split_path(address)
    with told(address, OutputError):
        try:
            if address.startswith("gs:"):
                condition = {} if version is None else {"ifGenerationMatch": version}
                store.call("DELETE", "b/{}/o/{}", bucket, key, **condition)
            else:
                condition = {} if version is None else {"IfMatch": version}
                store.call_s3("delete_object", Bucket=bucket, Key=key, **condition)
        except Exception as error:
            if not _is_refused(error) and not isinstance(error, FileNotFoundError):
                raise


_GOOGLE_NOTE = (
    "--==0==\nContent-Type: application/json; charset=UTF-8\n\n{}\n--==0==\nContent-Type: text/plain\n\n{}\n--==0==--"
)
"""Body of a put: what the object is, and its content."""


def _is_refused(error: Exception) -> bool:
    """Says whether a condition did not hold, or another write of the same object is on its way."""
    refusals = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
    return isinstance(error, FileExistsError) or code_of(error) in refusals
