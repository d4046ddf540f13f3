// What the reader has unfolded stays unfolded when the block is drawn anew: `<details id=…>` in a live block.
const unfolded = new Set();
element.addEventListener('toggle', event => {
  if (event.target.open) unfolded.add(event.target.id);
  else unfolded.delete(event.target.id);
}, true);
watch('value', () => { for (const id of unfolded) document.getElementById(id)?.setAttribute('open', ''); });
