// The referee of the tests with real processes finds what it is there to find.
import { expect, test } from 'vitest';
import type { Said } from './processes.js';
import { judge } from './referee.js';

const use = (consumer: string, token: number, atMs: number, untilMs: number, used = 'disk'): Said => ({
  used,
  token,
  consumer,
  atMs,
  untilMs,
});
const end = (token: number, atMs: number): Said => ({ ended: 'disk', token, atMs });

test('one holder after another, each with a greater token', () => {
  expect(
    judge([
      use('a', 7, 0, 100),
      use('a', 7, 50, 150),
      use('b', 8, 150, 250),
      end(8, 180),
      use('c', 9, 180, 280),
      end(9, 9000),
      use('d', 10, 280, 300),
      use('d', 8, 0, 500, 'another'),
    ]),
  ).toBe(6);
});

test.each([
  ['two at an instant', [use('a', 7, 0, 100), use('b', 8, 60, 160)], /disk was held by two: a .* b /],
  ['two, in the order of nobody', [use('b', 8, 60, 160), use('a', 7, 0, 100)], /held by two/],
  ['a smaller token later', [use('a', 8, 0, 100), use('b', 7, 200, 300)], /held by two/],
  [
    'one who waited behind another',
    [use('a', 7, 0, 500), use('b', 8, 600, 700), end(8, 610), use('c', 9, 605, 800)],
    /held by two: b .* c /,
  ],
  ['one token for two', [use('a', 7, 0, 100), use('b', 7, 200, 300)], /given to a and to b/],
  ['a party that broke', [{ failed: 'Error: broken' }], /broken/],
])('%s', (_, said, message) => {
  expect(() => judge(said)).toThrow(message);
});
