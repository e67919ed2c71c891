"""The fixed names of the DICOMweb tree's directories, and what each stands for.

    dicomweb/studies/index.json.gz
      <StudyUID>/  index.json.gz studies.gz series.gz metadata.gz deduplicated.gz thumbnail
        series/    index.json.gz
          <SeriesUID>/  metadata.gz instances.gz thumbnail
            instances/  index.json.gz
              <SOP>/    metadata.gz thumbnail frames/ rendered/ pixeldata bulkdata/
        deduplicated/  <hash>.gz instances/<SOP>.gz
        bulkdata/      <h0-3>/<h3-5>/<h5->.<ext>

Each document has a second name without `.gz`, under which it is plain, and some have names that other static
DICOMweb software uses. They resolve, and are not listed.
"""

from typing import Final, NamedTuple

from dicomfs.vfs import web_numbers as web

PLAIN: Final = 1
"""What a document's kind has to be raised by for the same document without gzip."""


class Name(NamedTuple):
    """A name of a directory: the kind of the node, in the family of the directory's own."""

    kind: int
    listed: bool


def _listed(**kinds: int) -> dict[bytes, Name]:
    return {name.replace("_", ".").encode(): Name(kind, True) for name, kind in kinds.items()}


def _unlisted(**kinds: int) -> dict[bytes, Name]:
    return {name.replace("_", ".").encode(): Name(kind, False) for name, kind in kinds.items()}


NAMES: Final = {
    (web.ALL, web.DIRECTORY): _listed(index_json_gz=web.INDEX) | _unlisted(index_json=web.INDEX + PLAIN),
    (web.STUDY, web.DIRECTORY): _listed(
        index_json_gz=web.INDEX,
        studies_gz=web.INDEX,
        series_gz=web.BELOW_INDEX,
        metadata_gz=web.METADATA,
        deduplicated_gz=web.LIST,
        thumbnail=web.POSTER,
        series=web.BELOW,
        deduplicated=web.DEDUPLICATED,
        bulkdata=web.BULKDATA,
    )
    | _unlisted(index_json=web.INDEX + PLAIN, studies=web.INDEX + PLAIN, metadata=web.METADATA + PLAIN),
    (web.STUDY, web.BELOW): _listed(index_json_gz=web.BELOW_INDEX) | _unlisted(index_json=web.BELOW_INDEX + PLAIN),
    (web.STUDY, web.DEDUPLICATED): _listed(instances=web.DEDUPLICATED_INSTANCES)
    | _unlisted(index_json_gz=web.HASHED, index_json=web.HASHED + PLAIN),
    (web.SERIES, web.DIRECTORY): _listed(
        metadata_gz=web.METADATA, instances_gz=web.INDEX, thumbnail=web.POSTER, instances=web.BELOW
    )
    | _unlisted(metadata=web.METADATA + PLAIN),
    (web.SERIES, web.BELOW): _listed(index_json_gz=web.INDEX) | _unlisted(index_json=web.INDEX + PLAIN),
    (web.INSTANCE, web.DIRECTORY): _listed(
        metadata_gz=web.METADATA,
        thumbnail=web.THUMBNAIL,
        pixeldata=web.PIXELDATA,
        frames=web.BELOW,
        rendered=web.RENDERED,
        bulkdata=web.BULKDATA,
    )
    | _unlisted(metadata=web.METADATA + PLAIN, index_mht=web.PART10),
}

DOCUMENTS: Final = {
    (web.ALL, web.INDEX): "studies",
    (web.STUDY, web.INDEX): "study",
    (web.STUDY, web.BELOW_INDEX): "series",
    (web.STUDY, web.METADATA): "metadata",
    (web.STUDY, web.LIST): "deduplicated",
    (web.STUDY, web.HASHED): "list",
    (web.SERIES, web.INDEX): "index",
    (web.SERIES, web.METADATA): "metadata",
    (web.INSTANCE, web.METADATA): "instance",
    (web.INSTANCE, web.LIST): "dedup",
}
"""Under which key a bundle has the document."""
TWICE: Final = frozenset({(web.STUDY, web.INDEX), (web.STUDY, web.BELOW_INDEX), (web.SERIES, web.INDEX)})
"""Documents with two listed names."""

DIRECTORIES: Final = frozenset(
    {
        *((web.STUDY, kind) for kind in (web.DIRECTORY, web.BELOW, web.BULKDATA)),
        *((web.STUDY, kind) for kind in (web.DEDUPLICATED, web.DEDUPLICATED_INSTANCES)),
        *((web.SERIES, kind) for kind in (web.DIRECTORY, web.BELOW)),
        *((web.INSTANCE, kind) for kind in (web.DIRECTORY, web.BELOW, web.RENDERED, web.BULKDATA)),
    }
)

CHANGING: Final = {
    (family, kind): tuple(name for name, known in names.items() if (family, known.kind) not in DIRECTORIES)
    for (family, kind), names in NAMES.items()
    if family != web.INSTANCE
}
"""Names that may mean another node after a commit."""
