"""Files from Hugging Face's hub: an answer within seconds where there is no network, or one that says nothing."""

from __future__ import annotations

from pathlib import Path


def snapshot(name: str, kind: str, wanted: list[str], unwanted: list[str] | None = None) -> Path:
    """The folder of a repository on this disk, with the files that match `wanted`: downloaded, or kept from before.

    kind: "model" or "dataset". Errors are huggingface_hub's own.
    """
    import huggingface_hub  # here, since hardly anything needs a network
    from huggingface_hub.errors import HfHubHTTPError

    silent = False
    try:  # asked first: snapshot_download asks without a limit of time, and a network may be there and say nothing
        huggingface_hub.HfApi().repo_info(name, repo_type=kind, timeout=huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT)
    except HfHubHTTPError:
        pass  # the hub has answered, and will answer the same
    except Exception:  # no network, in whatever way the client of the day puts it
        silent = True
    return Path(huggingface_hub.snapshot_download(name, repo_type=kind, allow_patterns=wanted, ignore_patterns=unwanted,
                                                  local_files_only=silent))
