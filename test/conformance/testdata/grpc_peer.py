# A server and a client of gRPC whose messages are bytes. See grpc_test.go.
import asyncio, json, sys
import grpc

OPTIONS = [("grpc.keepalive_time_ms", 500), ("grpc.http2.max_ping_strikes", 0), ("grpc.http2.max_pings_without_data", 0),
           ("grpc.http2.min_ping_interval_without_data_ms", 10), ("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
STREAMS = {"Unary": (False, False), "Early": (False, False), "Deadline": (False, False), "Upload": (True, False),
           "Download": (False, True), "Bidi": (True, True), "Cancel": (True, True)}


def code_of(number):
    return next(c for c in grpc.StatusCode if c.value[0] == number)


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.removeprefix("/spile.Test/")
        if name not in STREAMS:
            return None
        wants, gives = STREAMS[name]
        meta = {k: v for k, v in details.invocation_metadata}
        message = b"m" * int(meta.get("x-size", "10"))

        async def finish(context):
            code = int(meta.get("x-code", "0"))
            print("LOG", details.method, code, flush=True)
            context.set_trailing_metadata((("x-trailer", "t"),))
            if code:
                await context.abort(code_of(code), "as asked")

        async def one(request, context):
            if "x-early" not in meta:
                if wants:
                    async for _ in request:
                        pass
                await asyncio.sleep(int(meta.get("x-sleep", "0")) / 1000)
            await finish(context)
            return message

        async def many(request, context):
            if wants:
                async for _ in request:
                    yield message
                await asyncio.sleep(int(meta.get("x-sleep", "0")) / 1000)
            else:
                for _ in range(int(meta.get("x-count", "3"))):
                    yield message
            await finish(context)

        kind = {(False, False): grpc.unary_unary_rpc_method_handler, (True, False): grpc.stream_unary_rpc_method_handler,
                (False, True): grpc.unary_stream_rpc_method_handler, (True, True): grpc.stream_stream_rpc_method_handler}[wants, gives]
        return kind(many if gives else one)


async def serve(address):
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((Service(),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


async def request(channel, c):
    wants, gives = STREAMS.get(c["method"], (False, False))
    path, message = "/spile.Test/" + c["method"], b"r" * c["size"]
    how = {"metadata": tuple((c.get("meta") or {}).items()), "timeout": c["timeout"] / 1000 if c["timeout"] else None,
           "compression": grpc.Compression.Gzip if c["gzip"] else None}

    async def messages():
        for _ in range(c["messages"]):
            yield message
        if c["method"] == "Cancel":
            await asyncio.sleep(30)

    sent = messages() if wants else message
    code = 0
    try:
        if not gives:
            await (channel.stream_unary if wants else channel.unary_unary)(path)(sent, **how)
        else:
            call = (channel.stream_stream if wants else channel.unary_stream)(path)(sent, **how)
            async for _ in call:
                if c["method"] == "Cancel":
                    call.cancel()
            code = (await call.code()).value[0]
    except grpc.aio.AioRpcError as e:
        code = e.code().value[0]
    except asyncio.CancelledError:
        code = 1
    print("CALL", path, code, flush=True)


async def run(address, file, at_once):
    with open(file) as f:
        calls = json.load(f)
    room = asyncio.Semaphore(at_once)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:

        async def one(c):
            async with room:
                await request(channel, c)

        # What has a deadline is sent before others are made: it says how long it has.
        first = [asyncio.create_task(one(c)) for c in calls if c["timeout"]]
        await asyncio.sleep(0.5)
        await asyncio.gather(*first, *(one(c) for c in calls if not c["timeout"]))


if sys.argv[1] == "serve":
    asyncio.run(serve(sys.argv[2]))
else:
    asyncio.run(run(sys.argv[2], sys.argv[3], int(sys.argv[4])))
