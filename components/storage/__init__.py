"""One opener for local paths and s3:// URIs: files, clip stores, checkpoints, and footage at a DVC revision.

boto3 and the S3 variables of the environment are known to `s3_client.py` alone.
"""

from components.storage.clip_bytes import S3Bytes, clip_source
from components.storage.clip_upload import upload_clips
from components.storage.objects import download, exists, list_files, local_path, open_read, upload
from components.storage.revisions import fetch, pinned, published
from components.storage.s3_client import is_remote, split_uri
from components.storage.s3_files import S3Files

__all__ = ["S3Bytes", "S3Files", "clip_source", "download", "exists", "fetch", "is_remote", "list_files",
           "local_path", "open_read", "pinned", "published", "split_uri", "upload", "upload_clips"]
