import { checkEndpointUrl } from '../core/network.ts'
import { between, maxLength, type Variable } from './variable.ts'

function checkPrefix(value: string): string | undefined {
  const parts = value.replace(/\/$/, '').split('/')
  const isPath = parts.every((part) => /^[\w!.*'()=+@-]+$/.test(part) && part !== '.' && part !== '..')
  if (!isPath) return 'must be names of letters, digits and _!.*()=+@-, separated by /, without one in front'
  return maxLength(500)(value)
}

/** Where the bytes of files are kept. */
export const BYTES = {
  S3_BUCKET: {
    name: 'S3_BUCKET',
    kind: 'text',
    description:
      'The bucket for the bytes of artifacts and files, in S3 or what speaks its language. It must be there. Without it: files in `DATA_DIR/blobs`.',
    check: (value) =>
      /^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/.test(value)
        ? undefined
        : 'must be the name of a bucket: letters, digits, dots, hyphens and underscores',
  },
  UPLOAD_LIMIT_MB: {
    name: 'UPLOAD_LIMIT_MB',
    kind: 'number',
    default: '5000',
    description: 'Largest artifact or file in MB (1,000,000 bytes); a larger one is `too_large`.',
    check: between(0.001, 5_000_000),
  },
  AWS_REGION: {
    name: 'AWS_REGION',
    kind: 'text',
    default: 'eu-central-1',
    description: 'The region of `S3_BUCKET`; `auto` for R2.',
    check: (value) =>
      /^[A-Za-z0-9-]{1,64}$/.test(value) ? undefined : 'must be letters, digits and hyphens',
  },
  S3_ENDPOINT: {
    name: 'S3_ENDPOINT',
    kind: 'text',
    description:
      'Where the S3 server is, such as `https://minio.example.com:9000`, when it is not the one of AWS. Presigned URLs lead there, too.',
    check: checkEndpointUrl,
  },
  S3_FORCE_PATH_STYLE: {
    name: 'S3_FORCE_PATH_STYLE',
    kind: 'boolean',
    description:
      'The bucket is named in the path of URLs, not in front of the host. Default: `true` when `S3_ENDPOINT` is set, else `false`.',
  },
  S3_PREFIX: {
    name: 'S3_PREFIX',
    kind: 'text',
    description:
      'Begins the key of every object, such as `threadbase/`; a `/` is added at its end. One for each installation that shares the bucket.',
    check: checkPrefix,
  },
  AWS_ACCESS_KEY_ID: {
    name: 'AWS_ACCESS_KEY_ID',
    kind: 'text',
    description:
      'Who signs requests to S3. Without it and `AWS_SECRET_ACCESS_KEY`: whom the AWS SDK finds (shared files, the role of a container or machine).',
  },
  AWS_SECRET_ACCESS_KEY: {
    name: 'AWS_SECRET_ACCESS_KEY',
    kind: 'secret',
    description: 'The secret of `AWS_ACCESS_KEY_ID`.',
  },
  AWS_SESSION_TOKEN: {
    name: 'AWS_SESSION_TOKEN',
    kind: 'secret',
    description: 'The session of `AWS_ACCESS_KEY_ID`, where it is a temporary one.',
  },
} as const satisfies Record<string, Variable>
