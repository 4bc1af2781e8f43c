// An independent tus server on a free loopback port: node tus_node_server.js DIRECTORY.
// Prints its URL and runs until its standard input closes, so that it never outlives its test.
import { once } from 'node:events'
import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'

const server = new Server({ path: '/files', datastore: new FileStore({ directory: process.argv[2] }) })
const listening = server.listen({ host: '127.0.0.1', port: 0 })
await once(listening, 'listening')
console.log(`http://127.0.0.1:${listening.address().port}/files`)
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
