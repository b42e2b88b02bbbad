"""XMP: carried over, made true for the upright, enlarged picture, with a line of history about what made it.

XMP is RDF in XML (ISO 16684-1). A property is an attribute or a child of an ``rdf:Description``. What is not named
here stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.dom import minidom
from xml.parsers.expat import ExpatError

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"
_MM = "http://ns.adobe.com/xap/1.0/mm/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"

_ORIENTATION = (_TIFF, "Orientation")
_SIZES = {
    (_TIFF, "ImageWidth"): 0,
    (_TIFF, "ImageLength"): 1,
    (_EXIF, "PixelXDimension"): 0,
    (_EXIF, "PixelYDimension"): 1,
}
_LENGTHS = {
    (_PANORAMA, "FullPanoWidthPixels"): 0,
    (_PANORAMA, "FullPanoHeightPixels"): 1,
    (_PANORAMA, "CroppedAreaImageWidthPixels"): 0,
    (_PANORAMA, "CroppedAreaImageHeightPixels"): 1,
    (_PANORAMA, "CroppedAreaLeftPixels"): 0,
    (_PANORAMA, "CroppedAreaTopPixels"): 1,
}
"""Lengths in pixels, and the axis along which they grow: 0 width, 1 height."""

_LOST = frozenset(
    {
        ("http://ns.adobe.com/xap/1.0/", "Thumbnails"),  # of the picture as it was
        ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"),  # stands in segments that are not carried over
    }
)
_REGIONS = ("http://www.metadataworkinggroup.com/schemas/regions/", "Regions")
_LOST_SPACES = frozenset(
    {  # of what camera phones put behind the picture: video, depth, gain map
        "http://ns.google.com/photos/1.0/camera/",
        "http://ns.google.com/photos/1.0/container/",
        "http://ns.google.com/photos/1.0/depthmap/",
        "http://ns.google.com/photos/1.0/image/",
        "http://ns.adobe.com/hdr-gain-map/1.0/",
        "http://ns.apple.com/HDRGainMap/1.0/",
    }
)

HISTORY_BYTES = 1500
"""Bytes that `renewed_xmp` adds at most, but for very long names of models."""

MOST_BYTES = 1 << 20
"""Bytes of a packet that are kept. A tree of Python objects takes a hundred times as many, and seconds for each MB."""

_MOST_DEPTH = 100
"""Elements in each other. Writing them takes a call for each."""

_PACKET = (
    f'<x:xmpmeta xmlns:x="{_META}"><rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about=""/></rdf:RDF></x:xmpmeta>'
)
_BEGIN = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = b'\n<?xpacket end="w"?>'


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was done to a picture.

    Attributes:
        software: Name and version of the program.
        parameters: What it was run with, in words.
        before: Width and height of the upright input, in pixels.
    """

    software: str
    parameters: str
    before: tuple[int, int]


def renewed_xmp(packet: bytes | None, change: Change | None, after: tuple[int, int]) -> bytes | None:
    """Makes the XMP packet of the output.

    Args:
        packet: XMP of the upright input (`upright_xmp`); None where there was none.
        change: What is added to the history (``xmpMM:History``); None adds nothing.
        after: Width and height of the output, in pixels.

    Returns:
        UTF-8 with its packet wrapper; None where there is nothing to say.
    """
    if packet is None and change is None:
        return None
    document = _parse(packet or _PACKET.encode())
    factors = (1.0, 1.0) if change is None else (after[0] / change.before[0], after[1] / change.before[1])
    for description in _descriptions(document):
        for node in _properties(description):
            key = (node.namespaceURI, node.localName)
            if key in _SIZES:
                _set_value(node, str(after[_SIZES[key]]))
            elif key in _LENGTHS:
                _scale_value(node, factors[_LENGTHS[key]])
    if change is not None:
        _add_history(document, change)
    return _packet(document)


def upright_xmp(packet: bytes, orientation: int) -> bytes:
    """Makes the XMP packet of a picture that was turned upright. It leaves out what no longer holds.

    Args:
        packet: XMP of the picture as it was stored.
        orientation: EXIF orientation 1-8 that the picture had.

    Returns:
        UTF-8 with its packet wrapper.

    Raises:
        ValueError: The packet is longer than `MOST_BYTES` or nested too deeply, is no XML of UTF-8, has a document type
            (which could make it endless), or holds no RDF.
    """
    if len(packet) > MOST_BYTES:
        raise ValueError(f"XMP has {len(packet)} bytes, more than {MOST_BYTES}")
    document = _parse(packet)
    if _is_deeper(document, _MOST_DEPTH):
        raise ValueError(f"XMP has more than {_MOST_DEPTH} elements in each other")
    _description(document)
    for description in _descriptions(document):
        for node in _properties(description):
            key = (node.namespaceURI, node.localName)
            if key == _ORIENTATION:
                _set_value(node, "1")
            elif key in _LOST or node.namespaceURI in _LOST_SPACES or (key == _REGIONS and orientation != 1):
                _remove(description, node)
    return _packet(document)


def _parse(packet: bytes) -> minidom.Document:
    try:
        text = packet.strip(b"\0 \t\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("XMP is not UTF-8") from error
    if "<!DOCTYPE" in text:
        raise ValueError("XMP has a document type")
    try:
        return minidom.parseString(text.encode())
    except ExpatError as error:
        raise ValueError(f"XMP is no XML: {error}") from error


def _is_deeper(document: minidom.Document, depth: int) -> bool:
    level: list[minidom.Node] = [document]
    for _ in range(depth + 1):
        level = [child for node in level for child in node.childNodes]
    return bool(level)


def _packet(document: minidom.Document) -> bytes:
    assert document.documentElement is not None  # it was parsed
    return _BEGIN + document.documentElement.toxml().encode() + _END


def _descriptions(document: minidom.Document) -> list[minidom.Element]:
    return [
        node
        for root in document.getElementsByTagNameNS(_RDF, "RDF")
        for node in root.childNodes
        if isinstance(node, minidom.Element) and (node.namespaceURI, node.localName) == (_RDF, "Description")
    ]


def _description(document: minidom.Document) -> minidom.Element:
    """Returns the first description.

    Raises:
        ValueError: There is none.
    """
    found = _descriptions(document)
    if not found:
        raise ValueError("XMP holds no rdf:Description")
    return found[0]


def _properties(description: minidom.Element) -> Iterator[minidom.Attr | minidom.Element]:
    attributes = [description.getAttributeNode(name) for name in list(description.attributes.keys())]
    yield from [node for node in attributes if node is not None]
    yield from [node for node in description.childNodes if isinstance(node, minidom.Element)]


def _set_value(node: minidom.Attr | minidom.Element, value: str) -> None:
    if isinstance(node, minidom.Attr):
        node.value = value
    else:
        for child in list(node.childNodes):
            node.removeChild(child)
        text = minidom.Text()
        text.data = value
        node.appendChild(text)


def _scale_value(node: minidom.Attr | minidom.Element, factor: float) -> None:
    text = node.value if isinstance(node, minidom.Attr) else "".join(child.nodeValue or "" for child in node.childNodes)
    if text.strip().isdecimal():
        _set_value(node, str(round(int(text) * factor)))


def _remove(description: minidom.Element, node: minidom.Attr | minidom.Element) -> None:
    if isinstance(node, minidom.Attr):
        description.removeAttributeNode(node)
    else:
        description.removeChild(node)


def _add_history(document: minidom.Document, change: Change) -> None:
    events = _history(document)
    event = document.createElementNS(_RDF, "rdf:li")
    event.setAttribute("xmlns:rdf", _RDF)
    event.setAttribute("xmlns:stEvt", _EVENT)
    event.setAttributeNS(_EVENT, "stEvt:action", "resized")
    event.setAttributeNS(_EVENT, "stEvt:softwareAgent", change.software)
    event.setAttributeNS(_EVENT, "stEvt:parameters", change.parameters)
    events.appendChild(event)


def _history(document: minidom.Document) -> minidom.Element:
    """Finds the ``rdf:Seq`` of the picture's own history, or makes it.

    Items of lists of another kind are moved into it.
    """
    own = [node for each in _descriptions(document) for node in _properties(each) if isinstance(node, minidom.Element)]
    history = next((node for node in own if (node.namespaceURI, node.localName) == (_MM, "History")), None)
    if history is None:
        history = document.createElementNS(_MM, "xmpMM:History")
        history.setAttribute("xmlns:xmpMM", _MM)
        _description(document).appendChild(history)
    lists = [node for node in history.childNodes if isinstance(node, minidom.Element)]
    if lists and (lists[0].namespaceURI, lists[0].localName) == (_RDF, "Seq"):
        return lists[0]
    events = document.createElementNS(_RDF, "rdf:Seq")
    events.setAttribute("xmlns:rdf", _RDF)
    for each in lists:
        for node in list(each.childNodes):
            events.appendChild(node)
        history.removeChild(each)
    history.appendChild(events)
    return events
