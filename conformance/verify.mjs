// Verifies a bundle with @sigstore/verify: node verify.mjs BUNDLE PUBLIC_KEY TRUSTED_ROOT
import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { bundleFromJSON } from '@sigstore/bundle';
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { toSignedEntity, toTrustMaterial, Verifier } from '@sigstore/verify';

const [bundle, key, root] = process.argv.slice(2).map((path) => readFileSync(path, 'utf8'));
const publicKey = createPublicKey(key);
const material = toTrustMaterial(TrustedRoot.fromJSON(JSON.parse(root)), () => ({ publicKey, validFor: () => true }));
const verifier = new Verifier(material, { tlogThreshold: 1, ctlogThreshold: 0, timestampThreshold: 0, tsaThreshold: 0 });
verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(bundle))));
console.log('verified');
