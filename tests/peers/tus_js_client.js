// Uploads files with tus-js-client, so many at once; prints the seconds taken.
// node tus_js_client.js URL STREAMS FILE...
import { createReadStream, statSync } from 'node:fs'
import * as tus from 'tus-js-client'

const [endpoint, streams, ...files] = process.argv.slice(2)

function upload(path) {
  return new Promise((resolve, reject) => {
    new tus.Upload(createReadStream(path), {
      endpoint,
      uploadSize: statSync(path).size,
      chunkSize: 64 * 1024 * 1024,
      uploadDataDuringCreation: statSync(path).size <= 1024 * 1024,
      metadata: { filename: path },
      retryDelays: [],
      onError: reject,
      onSuccess: resolve,
    }).start()
  })
}

const began = process.hrtime.bigint()
const waiting = [...files]
async function stream() {
  for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) await upload(path)
}
await Promise.all(Array.from({ length: Number(streams) }, stream))
console.log(Number(process.hrtime.bigint() - began) / 1e9)
