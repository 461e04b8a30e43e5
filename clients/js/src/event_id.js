// Event ids and positions (R-HIST-2): `evt_` and base64url of epoch (u64), group (u16) and sequence (u64), big-endian.

const FORM = /^evt_[\w-]{24}$/;
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/**
 * Whether the event `id` is not newer than `last` on the same channel. An id of another epoch or group, or in another
 * form, is not comparable: its event is new.
 */
export function isRepeat(id, last) {
  if (id === last) return true;
  const [one, other] = [partsOf(id), partsOf(last)];
  return Boolean(one && other) && one.order === other.order && one.sequence <= other.sequence;
}

/**
 * The parts of an id, as texts that compare like the numbers. Epoch and group have 80 bits: 13 digits and the first 2
 * bits of the 14th.
 */
function partsOf(id) {
  if (!FORM.test(id)) return undefined;
  const digits = Array.from(id.slice(4), (character) => DIGITS.indexOf(character));
  const text = (numbers) => String.fromCharCode(...numbers.map((number) => 48 + number));
  return {
    order: text([...digits.slice(0, 13), digits[13] >> 4]),
    sequence: text([digits[13] & 15, ...digits.slice(14)]),
  };
}
