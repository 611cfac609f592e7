import { describe, expect, test } from 'vitest'
import { parseConfig } from '../config.ts'
import { checkOrigins, checkTrustProxy, readOrigins, readTrustProxy } from './network.ts'

describe('a list of origins', () => {
  test('is read as browsers send them', () => {
    expect(readOrigins('https://App.example.com:443/, http://localhost:3000,http://localhost:3000')).toEqual([
      'https://app.example.com',
      'http://localhost:3000',
    ])
    expect(readOrigins('')).toEqual([])
  })

  test.each([
    '*',
    'null',
    'https://*.example.com',
    'https://a.example,*',
    'https://a.example/path',
    'https://a.example?x',
    'https://a.example#x',
    'https://user@a.example',
    'a.example',
    '//a.example',
    'file:///x',
    'javascript:1',
    'https://',
    'https://a.example,,https://b.example',
    'https://a.example\\x',
  ])('%s is refused', (text) => {
    expect(checkOrigins(text)).toMatch(/^must /)
    expect(() => parseConfig({ CORS_ORIGINS: text })).toThrow(/^CORS_ORIGINS must /)
  })
})

describe('trusted proxies', () => {
  test('are counted or listed', () => {
    expect(readTrustProxy(undefined)).toBe(false)
    expect(readTrustProxy('2')).toEqual({ hops: 2 })
    const list = '10.0.0.0/8, ::1, fd00::/8, 192.168.1.1, loopback, uniquelocal'
    expect(checkTrustProxy(list)).toBeUndefined()
    expect(readTrustProxy(list)).toEqual({ addresses: list.split(', ') })
  })

  test.each([
    '0',
    '11',
    '-1',
    '1.5',
    'true',
    'all',
    '*',
    '10.0.0.0/33',
    '0.0.0.0/0',
    '::/0',
    '10.0.0/8',
    '10.0.0.1,,',
    '::1/129',
    'proxy.example.com',
    '10.0.0.0/8/8',
    'fe80::1%eth0',
  ])('%s is refused', (text) => {
    expect(checkTrustProxy(text)).toMatch(/^must /)
    expect(() => parseConfig({ TRUST_PROXY: text })).toThrow(/^TRUST_PROXY must /)
  })
})

describe('a collector of traces', () => {
  test('has one URL of two variables', () => {
    const url = (env: Record<string, string>) => parseConfig(env).traces.url
    expect(url({})).toBeUndefined()
    expect(url({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318/' })).toBe('http://c:4318/v1/traces')
    const both = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c', OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://d/x' }
    expect(url(both)).toBe('http://d/x')
    const { headers } = parseConfig({ OTEL_EXPORTER_OTLP_HEADERS: 'api-key=a%20b, x = y' }).traces
    expect(headers).toEqual({ 'api-key': 'a b', x: 'y' })
  })

  test('bad values are named and not repeated', () => {
    for (const env of [
      { OTEL_EXPORTER_OTLP_ENDPOINT: 'grpc://user:hunter2@c' },
      { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'hunter2' },
      { OTEL_EXPORTER_OTLP_HEADERS: 'hunter2' },
      { OTEL_EXPORTER_OTLP_HEADERS: 'a=%zzhunter2' },
    ]) {
      expect(() => parseConfig(env)).toThrow(new RegExp(`^${Object.keys(env)[0]} must be (?!.*hunter2)`))
    }
  })
})
