// fetch of Node is undici of npm.
const url = process.argv[2], get = async (path, options) => (await fetch(url + path, options)).arrayBuffer()
const big = new Uint8Array(300000).fill(65)
async function* chunks() { for (let i = 0; i < 5; i++) yield new TextEncoder().encode("GET /fake HTTP/1.1\r\n\r\n") }

for (let i = 0; i < 10; i++) await get("/small?" + i)
await Promise.all(Array.from({ length: 30 }, (_, i) => get(i % 2 ? "/medium?" + i : "/small?" + i)))
for (const path of ["/large", "/empty", "/none", "/dir"]) await get(path)
await get("/medium", { method: "HEAD" })
if (process.argv[3] === "programs") {
  for (const body of ["x=1", big, new Blob([big])]) await get("/echo", { method: "POST", body })
  await get("/count", { method: "POST", body: chunks(), duplex: "half" })
  for (const path of ["/chunked", "/nocontent"]) await get(path)
}
