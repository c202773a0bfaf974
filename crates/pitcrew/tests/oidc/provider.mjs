// A provider of OpenID Connect for the test of logins: `oidc-provider`, with users who need no password.
//
// Usage: node provider.mjs PACKAGES PORT REDIRECT_URI. Prints `ready` when it answers. Whoever logs in is the user of
// the `login` cookie; `POST /rotate` makes new keys, and the old ones are published no more.

import http from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { pathToFileURL } from 'node:url';

const [packages, port, redirectUri] = process.argv.slice(2);
const found = packages + '/node_modules/oidc-provider/lib/index.js';
const { default: Provider } = await import(pathToFileURL(found));
const issuer = `http://127.0.0.1:${port}`;

const USERS = {
  ada: { name: 'Ada Lovelace', email: 'ada@example.com', email_verified: true, groups: ['devs'] },
  boss: { name: 'The Boss', email: 'boss@example.com', email_verified: true, groups: ['devs', 'admins'] },
  guest: { name: 'A Guest', email: 'guest@example.com', email_verified: true, groups: [] },
  outsider: { name: 'An Outsider', email: 'outsider@elsewhere.example', email_verified: true, groups: ['admins'] },
};

let round = 0;

function make() {
  round += 1;
  const key = (type, options, alg) => ({
    ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
    kid: `${alg}-${round}`,
    alg,
    use: 'sig',
  });
  const keys = [key('rsa', { modulusLength: 2048 }, 'RS256'), key('ec', { namedCurve: 'P-256' }, 'ES256')];
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'pitcrew',
        client_secret: 'a secret/with +signs',
        redirect_uris: [redirectUri],
        // The second set of keys is also of another kind.
        id_token_signed_response_alg: round === 1 ? 'RS256' : 'ES256',
      },
    ],
    jwks: { keys },
    pkce: { required: () => true },
    cookies: { keys: ['only for a test'] },
    features: { devInteractions: { enabled: false } },
    claims: { openid: ['sub'], profile: ['name', 'preferred_username', 'groups'], email: ['email', 'email_verified'] },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id, ...USERS[id] }) }),
    // Nobody is asked whether they agree.
    async loadExistingGrant(context) {
      const grant = new context.oidc.provider.Grant({
        clientId: context.oidc.client.clientId,
        accountId: context.oidc.session.accountId,
      });
      grant.addOIDCScope('openid profile email');
      await grant.save();
      return grant;
    },
  });
  return { provider, answer: provider.callback() };
}

let current = make();

http
  .createServer(async (request, response) => {
    try {
      if (request.url === '/rotate') {
        current = make();
        response.end('rotated');
      } else if (request.url.startsWith('/interaction/')) {
        const user = /(?:^|;\s*)login=(\w+)/.exec(request.headers.cookie ?? '')?.[1];
        const result = USERS[user]
          ? { login: { accountId: user } }
          : { error: 'access_denied', error_description: 'nobody is there' };
        await current.provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
      } else {
        current.answer(request, response);
      }
    } catch (error) {
      response.statusCode = 500;
      response.end(String(error));
    }
  })
  .listen(Number(port), '127.0.0.1', () => console.log('ready'));
