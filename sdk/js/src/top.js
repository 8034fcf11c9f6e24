// The N largest values of each group.
//
// One private table has all groups. For each group, it has one row with the group's N largest items
// in order. Every other item has two rows. The row under the item's name contains its value. The
// row under its value gives the order of the items: if one of the N largest shrinks or is removed,
// these rows show the next largest item.

import { ProjectionError, show } from "./errors.js";
import { integer, text } from "./fields.js";
import { InTenant, keyOf, narrow } from "./keys.js";
import { compareUtf8 } from "./json.js";
import { Table } from "./table.js";

/** The `count` largest values of each group. Create it with {@link topN}. */
class TopN {
  constructor(name, count) {
    if (!Number.isSafeInteger(count) || count < 1) {
      throw new ProjectionError(`table ${show(name)}: ${show(count)} is not a number of items to keep: give an integer from 1`);
    }
    this.name = name;
    this.count = count;
    this.table = new Table(name, { largest: text, others: integer, value: integer }, { private: true });
  }

  /** Adds `amount` to the value of `item`; a new item begins at 0. Returns whether the N largest have changed. */
  add(group, item, amount) {
    return this.#change(group, item, (value) => (value ?? 0) + amount);
  }

  /** Sets the value of `item`. Returns whether the N largest have changed. */
  set(group, item, value) {
    return this.#change(group, item, () => value);
  }

  /** Removes `item`. Returns whether the N largest have changed. */
  remove(group, item) {
    return this.#change(group, item, () => null);
  }

  /** The N largest items of `group`, each as `{ item, value }`, the largest first. */
  largest(group) {
    return this.#group(this.#text(group)).largest;
  }

  /** The value of `item`, or null. */
  value(group, item) {
    const [name, own] = [this.#text(group), this.#text(item)];
    const ranked = this.#group(name).largest.find((other) => other.item === own);
    return ranked?.value ?? this.#other(name, own);
  }

  /** Removes all items of `group`. */
  clear(group) {
    const name = this.#text(group);
    this.table.delete(groupKey(name));
    for (const prefix of [itemKey(name, ""), placesKey(name)]) {
      for (const { key } of this.table.scan({ prefix })) this.table.delete(key);
    }
  }

  #text(key) {
    const parts = Array.isArray(key) ? key : [key];
    if (parts[0] instanceof InTenant) {
      throw new ProjectionError(`table \`${this.name}\`: make the tenant part of the group: \`[tenant, group]\``);
    }
    return keyOf(parts);
  }

  #group(name) {
    const row = this.table.get(groupKey(name));
    if (row === null) return { largest: [], others: 0 };
    return { largest: JSON.parse(row.largest).map(([item, value]) => ({ item, value })), others: row.others };
  }

  #other(name, item) {
    return this.table.get(itemKey(name, item))?.value ?? null;
  }

  /** Sets the value of an item to the result of `change`, which gets the current one; null removes it. */
  #change(group, item, change) {
    const [name, own] = [this.#text(group), this.#text(item)];
    const { largest, others } = this.#group(name);
    const ranked = largest.find((other) => other.item === own);
    const before = ranked?.value ?? (others > 0 ? this.#other(name, own) : null);
    const after = this.#checked(own, change(before));
    if (before === after) return false;
    const state = { others };
    if (ranked === undefined && before !== null) this.#removeOther(name, own, before, state);
    const candidates = largest.filter((other) => other !== ranked);
    if (after !== null) insert(candidates, { item: own, value: after });
    // Another item may be among the N largest now.
    const shrinks = ranked !== undefined && (after === null || (after < before && candidates.at(-1).item === own));
    if (shrinks && state.others > 0) this.#promote(name, candidates, state);
    for (const other of candidates.splice(this.count)) this.#putOther(name, other, state);
    this.#putGroup(name, candidates, state.others);
    return candidates.length !== largest.length || candidates.some(({ item, value }, i) => item !== largest[i].item || value !== largest[i].value);
  }

  #checked(item, value) {
    if (value === null || Number.isSafeInteger(value)) return value;
    throw new ProjectionError(`table \`${this.name}\`: the value of ${show(item)} is ${show(value)}, not an integer from -(2^53 - 1) to 2^53 - 1`);
  }

  /** Adds the first of the items that are not ranked to the candidates. */
  #promote(name, candidates, state) {
    const prefix = placesKey(name);
    for (const { key, row } of this.table.scan({ prefix, limit: 1 })) {
      const rest = key.slice(prefix.length);
      const other = { item: rest.slice(rest.indexOf("/") + 1), value: row.value };
      this.#removeOther(name, other.item, other.value, state);
      insert(candidates, other);
    }
  }

  #putGroup(name, largest, others) {
    if (largest.length === 0 && others === 0) this.table.delete(groupKey(name));
    else this.table.put(groupKey(name), { largest: JSON.stringify(largest.map(({ item, value }) => [item, value])), others });
  }

  #putOther(name, { item, value }, state) {
    this.table.put(itemKey(name, item), { value });
    this.table.put(placeKey(name, item, value), { value });
    state.others += 1;
  }

  #removeOther(name, item, value, state) {
    this.table.delete(itemKey(name, item));
    this.table.delete(placeKey(name, item, value));
    state.others -= 1;
  }
}

/** Adds an item at its place: larger values first, and of equal ones the first key. */
function insert(items, item) {
  const before = (other) => other.value > item.value || (other.value === item.value && compareUtf8(other.item, item.item) < 0);
  let place = items.length;
  while (place > 0 && !before(items[place - 1])) place--;
  items.splice(place, 0, item);
}

const groupKey = (name) => keyOf(["group", name]);

/** The key of an item's row by its name. The item is not escaped, because escaping could change the order. */
const itemKey = (name, item) => keyOf(["item", name, ""]) + item;

const placesKey = (name) => keyOf(["place", name, ""]);

/** The key of an item's row by its value. These keys sort by descending value, and among equal values by item. */
const placeKey = (name, item, value) => `${placesKey(name)}${narrow(-1n - BigInt(value))}/${item}`;

/**
 * The `count` largest values of each group, exact while values grow, shrink and are removed.
 * @param {string} name the name of their private table
 * @param {number} count how many items of a group are ranked
 */
export const topN = (name, count) => new TopN(name, count);
