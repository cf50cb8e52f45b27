"""What Holdfast costs on this machine: `python -m holdfast.bench`, or `make bench`.

Every rate is measured in rounds that alternate with the raw floor (one durable commit of the same
bytes after another, on the same disk), so that both see the same machine.
"""
