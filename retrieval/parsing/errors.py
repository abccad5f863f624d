"""What can be wrong with a file, as OpenAI's `last_error` says it (`code`), and more exactly (`reason`).

    ParseError                      server_error / parser_failed
    ├── ParserUnavailable           server_error / parser_unavailable    a library is missing, the process cannot start
    ├── UnsupportedFile             unsupported_file / unsupported_type
    └── InvalidFile                 invalid_file / damaged
        ├── EmptyFile               invalid_file / empty                 no bytes, or no text in them
        ├── EncryptedFile           invalid_file / encrypted
        ├── UnknownEncoding         invalid_file / unknown_encoding
        ├── TooDeep                 invalid_file / too_deep
        ├── TooLarge                invalid_file / too_large             the file, what it unpacks to, or its text
        ├── TooSlow                 invalid_file / too_slow              CPU or wall-clock time
        ├── TooMuchMemory           invalid_file / too_much_memory
        └── Crashed                 invalid_file / parser_crashed        the parser's own code died of this file

The message is for the person who uploaded the file: it names what is wrong and the way out, never the file's text.
"""

from collections.abc import Mapping
from typing import Literal

Code = Literal["server_error", "unsupported_file", "invalid_file"]


class ParseError(Exception):
    """`message` is safe to show to the owner of the file."""

    code: Code = "server_error"
    reason = "parser_failed"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ParserUnavailable(ParseError):
    reason = "parser_unavailable"
    status = 503


class UnsupportedFile(ParseError):
    code: Code = "unsupported_file"
    reason = "unsupported_type"
    status = 400


class InvalidFile(ParseError):
    code: Code = "invalid_file"
    reason = "damaged"
    status = 400


class EmptyFile(InvalidFile):
    reason = "empty"


class EncryptedFile(InvalidFile):
    reason = "encrypted"


class UnknownEncoding(InvalidFile):
    reason = "unknown_encoding"


class TooDeep(InvalidFile):
    reason = "too_deep"


class TooLarge(InvalidFile):
    reason = "too_large"
    status = 413


class TooSlow(InvalidFile):
    reason = "too_slow"


class TooMuchMemory(InvalidFile):
    reason = "too_much_memory"


class Crashed(InvalidFile):
    reason = "parser_crashed"


BY_REASON: Mapping[str, type[ParseError]] = {
    error.reason: error
    for error in (
        ParseError,
        ParserUnavailable,
        UnsupportedFile,
        InvalidFile,
        EmptyFile,
        EncryptedFile,
        UnknownEncoding,
        TooDeep,
        TooLarge,
        TooSlow,
        TooMuchMemory,
        Crashed,
    )
}
