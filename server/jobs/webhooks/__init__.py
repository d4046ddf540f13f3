"""Webhooks as OpenAI has them: an endpoint gets a signed message when a job ends. https://platform.openai.com/docs/guides/webhooks

`outbox.enqueue` is called in the transaction of the change itself; `deliverer` sends, with retries.
"""
