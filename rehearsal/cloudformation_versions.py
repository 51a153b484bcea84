"""CloudFormation: versions and aliases of functions and state machines."""

import contextlib
import hashlib
from typing import Any

from moto.awslambda.exceptions import UnknownAliasException, UnknownFunctionException
from moto.awslambda.models import lambda_backends
from moto.core.common_models import CloudFormationModel
from moto.stepfunctions import models as states

from rehearsal.lambda_ import functions
from rehearsal.patches import Difference, RehearsalError, configure, patch

VERSIONS = Difference(
    "versions_and_aliases_are_created",
    "CloudFormation skips aliases of functions and state machines and versions of state machines, and knows no number "
    "of a function's version",
)


class _Resource:
    """A resource that CloudFormation can make and change."""

    def __init__(self, properties: dict[str, Any], account: str, region: str) -> None:
        self.properties, self.account, self.region = properties, account, region
        self.physical_resource_id = self._make()

    def _make(self) -> str:
        """Make or change what the resource stands for; return its ARN."""
        raise NotImplementedError

    @staticmethod
    def cloudformation_name_type() -> None:
        """Return nothing: CloudFormation gives no names here."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> "_Resource":
        """Make a resource."""
        return cls(cloudformation_json["Properties"], account_id, region_name)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: "_Resource", cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> "_Resource":
        """Publish another version, or move an alias."""
        return cls(cloudformation_json["Properties"], account_id, region_name)

    def delete(self, *_: Any) -> None:
        """Do nothing: a version goes with its function or state machine, as SAM retains it."""

    def get_cfn_attribute(self, name: str) -> str:
        """Return what ``Fn::GetAtt`` gives."""
        if name.endswith("Arn"):
            return self.physical_resource_id
        raise RehearsalError(f"{type(self).__name__} has no attribute {name} here")


class FunctionVersion(_Resource):
    """A version of a function."""

    #: A change replaces it, and the former version stays.
    replaced_by_change = True

    def _make(self) -> str:
        backend, name = lambda_backends[self.account][self.region], self.properties["FunctionName"]
        existing = {function.version for function in backend.list_versions_by_function(name)}
        published: Any = backend.publish_version(name, self.properties.get("Description", ""))
        self.version = str(published.version)
        if published.version in existing - {"$LATEST"}:
            exists = f"A version for this Lambda function exists ( {self.version} )."
            raise RehearsalError(f"{exists} Modify the function to create a new version.")
        return str(published.function_arn)

    def get_cfn_attribute(self, name: str) -> str:
        """Return what ``Fn::GetAtt`` gives."""
        return self.version if name == "Version" else super().get_cfn_attribute(name)


class FunctionAlias(_Resource):
    """An alias of a function."""

    def _make(self) -> str:
        backend, given = lambda_backends[self.account][self.region], self.properties
        if "RoutingConfig" in given:
            raise RehearsalError("The rehearsal moves an alias of a function to one version, all at once")
        name, function, version = given["Name"], given["FunctionName"], str(given["FunctionVersion"])
        aliases = {alias.name: alias for alias in backend.list_aliases(function)}
        if name in aliases:
            former = backend.get_function(function, aliases[name].function_version)
            alias = backend.update_alias(name, function, version, given.get("Description", ""), "")
            if str(former.version) != version:
                functions().forget(former.function_arn)
        else:
            alias = backend.create_alias(name, function, version, given.get("Description", ""), "")
        return str(alias.arn)

    def delete(self, *_: Any) -> None:
        """Remove the alias, if its function still exists."""
        with contextlib.suppress(UnknownAliasException, UnknownFunctionException):
            lambda_backends[self.account][self.region].delete_alias(
                self.properties["Name"], self.properties["FunctionName"]
            )


def _machine(resource: _Resource, arn: str) -> Any:
    backend = states.stepfunctions_backends[resource.account][resource.region]
    return next((machine for machine in backend.state_machines if machine.arn == arn), None)


class MachineVersion(_Resource):
    """A version of a state machine."""

    replaced_by_change = True

    def _make(self) -> str:
        machine = _machine(self, self.properties["StateMachineArn"])
        latest = machine.latest_version
        # Publishing the same revision again gives the same version.
        if not latest or (latest.definition, latest.roleArn) != (machine.definition, machine.roleArn):
            machine.publish(self.properties.get("Description"))
        return str(machine.latest_version.arn)


class MachineAlias(_Resource):
    """An alias of a state machine."""

    def _make(self) -> str:
        shift = self.properties.get("DeploymentPreference")
        if not shift or shift["Type"] != "ALL_AT_ONCE":
            raise RehearsalError("The rehearsal moves an alias of a state machine to one version, all at once")
        version, name = shift["StateMachineVersionArn"], self.properties["Name"]
        self.machine = version.rpartition(":")[0]
        routes = [{"stateMachineVersionArn": version, "weight": 100}]
        aliases = _machine(self, self.machine).aliases
        if name in aliases:
            aliases[name].update(routing_configuration=routes)
        else:
            backend: Any = states.stepfunctions_backends[self.account][self.region]
            backend.create_state_machine_alias(
                description=self.properties.get("Description"), name=name, routing_configuration=routes
            )
        return str(aliases[name].arn)

    def delete(self, *_: Any) -> None:
        """Remove the alias, if its state machine still exists."""
        if machine := _machine(self, self.machine):
            machine.aliases.pop(self.properties["Name"], None)


@configure(VERSIONS)
def _make_types() -> None:
    for kind, type_name in {
        FunctionVersion: "AWS::Lambda::Version",  # takes the place of moto's
        FunctionAlias: "AWS::Lambda::Alias",
        MachineVersion: "AWS::StepFunctions::StateMachineVersion",
        MachineAlias: "AWS::StepFunctions::StateMachineAlias",
    }.items():
        known = {"cloudformation_type": staticmethod(lambda type_name=type_name: type_name)}
        type(type_name.replace("::", ""), (kind, CloudFormationModel), known)


@patch(states.StateMachine, "get_cfn_attribute", VERSIONS)
def _get_machine_attribute(original: Any, self: Any, attribute_name: str) -> Any:
    if attribute_name == "StateMachineRevisionId":
        return hashlib.sha256(f"{self.definition} {self.roleArn}".encode()).hexdigest()
    return original(self, attribute_name)
