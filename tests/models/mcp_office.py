"""A small MCP server over stdio, run by the tests: `python mcp_office.py FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

FOLDER = Path(sys.argv[1])
ANY = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
TOOLS = {
    "look_up": {"readOnlyHint": True},
    "file_away": {"idempotentHint": True},
    "send": {"destructiveHint": False},
    "send_silently": None,
}


def note(line: str) -> None:
    with (FOLDER / "called").open("a") as file:
        file.write(f"{line}\n")


async def list_tools(*_: object) -> types.ListToolsResult:
    note("(listed)")
    return types.ListToolsResult(
        tools=[
            types.Tool(
                name=name,
                description=f"To {name}.",
                input_schema=ANY,
                annotations=None if hints is None else types.ToolAnnotations(**hints),
            )
            for name, hints in TOOLS.items()
        ]
    )


async def call_tool(_: object, params: types.CallToolRequestParams) -> types.CallToolResult:
    note(f"{params.name} {params.arguments['what']}")
    if (FOLDER / "silent").exists():
        await asyncio.sleep(60)
    text = f"{params.name} did {params.arguments['what']}"
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


async def main() -> None:
    note("(started)")
    server = Server("office", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())
