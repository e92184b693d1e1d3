// Publishes one reading with mqtt from npm and waits until it is acknowledged.
const fs = require('fs')
const mqtt = require('mqtt')

const [url, version, qos, device, token, value, ca] = process.argv.slice(2)
const client = mqtt.connect(url, {
  protocolVersion: Number(version),
  clientId: device,
  username: device,
  password: token,
  reconnectPeriod: 0,
  ca: ca ? fs.readFileSync(ca) : undefined,
})
const fail = (error) => { console.error(error); process.exit(1) }
setTimeout(() => fail('not acknowledged'), 20000).unref()
client.on('error', fail)
client.on('connect', () => {
  const payload = JSON.stringify({ temperatura: Number(value) })
  client.publish(`sensores/${device}/data`, payload, { qos: Number(qos) }, (error) => {
    if (error) fail(error)
    client.end(false, {}, () => process.exit(0))
  })
})
